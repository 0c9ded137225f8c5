"""`python -m tiltlab`, the command line: `torchrun -m tiltlab study ...` starts it so."""

from tiltlab.cli.main import main

if __name__ == "__main__":
    main()
