"""Style sheet of the page of ``report``: light and dark, for wide and narrow screens."""

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --page: #ffffff; --soft: #f2f4f7;
  --line: #d5dae1; --faint: #5b6470; --hint: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --page: #16181c; --soft: #22262c; --line: #3a4049;
    --faint: #a3acb8; --hint: #3d3416; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 44rem; }
.tiles { display: grid; gap: .75rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.tiles > div { background: var(--soft); border-radius: .5rem; padding: .75rem; }
.tiles span { display: block; font-size: .85rem; color: var(--faint); }
.tiles strong { font-size: 1.6rem; }
.hint { background: var(--hint); border-radius: .5rem; padding: .5rem .75rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--page); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.texts td, .texts th { overflow-wrap: anywhere; }
.texts tbody th { position: static; min-width: 6rem; }
.confusion td { border: 1px solid var(--line); text-align: center; min-width: 2.4rem; }
.confusion tbody th { max-width: 12rem; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.confusion thead th { padding: .3rem; text-align: center; }
.confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12rem;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.gallery { display: grid; gap: .75rem; margin: .75rem 0;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
figure { margin: 0; background: var(--soft); border-radius: .5rem; overflow: hidden; }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: #808080; }
figcaption { padding: .5rem; font-size: .85rem; overflow-wrap: anywhere; }
.path { color: var(--faint); font-size: .78rem; overflow-wrap: anywhere; }
"""
