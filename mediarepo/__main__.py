"""`python -m mediarepo` is `mediarepo`."""

from mediarepo.cli.main import main

main()
