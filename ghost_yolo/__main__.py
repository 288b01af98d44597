"""`python -m ghost_yolo` is `ghost-yolo`."""

from ghost_yolo.cli import main

if __name__ == "__main__":
    main()
