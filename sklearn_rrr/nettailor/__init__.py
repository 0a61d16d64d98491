"""NetTailor: blocks replaced by lean proxies (Morgado and Vasconcelos, CVPR 2019)."""
