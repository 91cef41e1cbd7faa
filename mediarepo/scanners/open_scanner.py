"""Opens a scanner by its configuration."""

from mediarepo.config.scanners import ScannerConfig, ScannerKind
from mediarepo.scanners.clamd import Clamd
from mediarepo.scanners.http import HttpScanner
from mediarepo.scanners.icap import Icap
from mediarepo.scanners.scanner import Scanner


def open_scanner(config: ScannerConfig) -> Scanner:
    """Return the client for a scanner; it connects when it is asked something."""
    match config.kind:
        case ScannerKind.CLAMD:
            return Clamd(config)
        case ScannerKind.ICAP:
            return Icap(config)
        case ScannerKind.HTTP:
            return HttpScanner(config)
