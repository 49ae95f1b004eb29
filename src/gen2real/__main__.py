"""`python -m gen2real`, and `torchrun -m gen2real` for several processes."""

from gen2real.cli import main

if __name__ == "__main__":
    main()
