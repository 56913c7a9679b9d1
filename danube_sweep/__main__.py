"""`python -m danube_sweep` is the console command `danube-sweep`."""

from danube_sweep.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
