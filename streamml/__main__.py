"""``python -m streamml``, the same as the command ``streamml``."""

from streamml.cli.main import main

if __name__ == "__main__":
    main()
