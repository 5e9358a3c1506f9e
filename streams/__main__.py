"""`python -m streams`, and what the command `decisioning` starts."""

import signal

# Until the command line is there to be clean about Ctrl-C, it simply ends the process.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from streams.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
