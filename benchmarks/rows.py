"""Run jobs that add rows to a table of results, and resume interrupted runs."""

import time

import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config

from sklearn_rrr._files import write_atomically


def read_rows(file, text):
    """Read rows; columns in `text` stay strings, such as a set NA or a digest of digits only."""
    numbers = [name for name in pd.read_csv(file, nrows=0) if name not in text]
    missing = {key: [""] for key in numbers}
    kinds = dict.fromkeys(text, str)
    return pd.read_csv(file, dtype=kinds, keep_default_na=False, na_values=missing)


def run_jobs(jobs, file, key, text, n_jobs, describe):
    """Run the jobs that have no row in a file yet; return all rows of the file.

    Parameters
    ----------
    jobs : iterable of (dict, callable, tuple)
        Key, function and further arguments of each job. The function takes the key, the
        arguments and the number of threads, and returns one row.
    file : Path
        CSV file; each row is written as soon as its job ends.
    key : list of str
        Columns that identify a job.
    text : iterable of str
        Columns of strings.
    n_jobs : int
        Number of parallel jobs; if it is more than one, each job has one thread.
    describe : str
        Format string of the line printed for each row.

    Returns
    -------
    rows : DataFrame
    """
    rows = read_rows(file, text) if file.exists() else pd.DataFrame(columns=key)
    done = set(rows[key].itertuples(index=False, name=None))
    threads = torch.get_num_threads() if n_jobs == 1 else 1
    calls = [
        delayed(function)(what, *arguments, threads)
        for what, function, arguments in jobs
        if tuple(what.values()) not in done
    ]
    start = time.perf_counter()
    with parallel_config("loky", inner_max_num_threads=None if n_jobs == 1 else 1):
        results = Parallel(n_jobs, return_as="generator_unordered")(calls)
    for i, row in enumerate(results, 1):
        row["jobs"] = n_jobs
        rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
        write_atomically(file, rows.to_csv(index=False, float_format="%.6g").encode())
        left = (time.perf_counter() - start) / i * (len(calls) - i) / 60
        print(f"{describe.format(**row)}; {len(calls) - i} left, {left:.0f} min", flush=True)
    return rows
