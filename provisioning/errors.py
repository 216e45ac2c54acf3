"""What can go wrong at the technician's desk."""

from __future__ import annotations

from fleet.errors import BenchError, ConfigurationError, NetzpulsError, UsageError


class PortMissingError(BenchError):
    """The serial port is not there."""

    code = "port-missing"


class PortBusyError(BenchError):
    """Another program has the serial port."""

    code = "port-busy"


class PortDeniedError(BenchError):
    """The user may not open the serial port, or it is no serial port."""

    code = "port-denied"


class BoardSilentError(BenchError):
    """No board answers on the port."""

    code = "board-silent"


class RemoteError(BenchError):
    """A port on a gateway cannot be used from here."""

    code = "remote-port"


class ChipError(NetzpulsError):
    """The board is not one that the image runs on: another chip, too little flash."""

    code = "wrong-chip"


class WriteError(NetzpulsError):
    """The board was lost or refused while its flash was written."""

    code = "write-failed"


class ReadError(NetzpulsError):
    """The board was lost while its flash was read."""

    code = "read-failed"


class VerifyError(NetzpulsError):
    """The board's flash holds something else than what was written."""

    code = "verify-failed"


class SelfTestError(NetzpulsError):
    """The board did not say that it is well."""

    code = "self-test-failed"


class BenchDownError(BenchError):
    """The bench's gateway cannot be used."""

    code = "bench-down"


class UntestedError(NetzpulsError):
    """A board has not passed the self-test that it must have passed."""

    code = "untested"


class ImageError(ConfigurationError):
    """The application image is missing, damaged, or for another chip."""

    code = "image"


class AlteredError(ImageError):
    """What was fetched is not the image that is pinned."""

    code = "image-altered"


class UnpinnedError(UsageError):
    """It is not known what an image must be."""

    code = "image-unpinned"


class DownloadError(BenchError):
    """An image cannot be fetched, or not be kept."""

    code = "download"


class WlanKeyError(ConfigurationError):
    """The key of the site's WLAN is missing or cannot be one."""

    code = "wlan-key"


class RoomsError(ConfigurationError):
    """The list of rooms cannot be read, or is wrong."""

    code = "rooms"


class NoRoomError(NetzpulsError):
    """There is no room left for a board, or nobody says which."""

    code = "no-room"


class NoBoardError(BenchError):
    """No board is plugged in."""

    code = "no-board"


class StoppedError(NetzpulsError):
    """The work on a board, or a whole tray, was stopped before its end."""

    code = "interrupted"
    exit_code = 130


class TrayError(NetzpulsError):
    """Some boards of a tray, or all, are not done."""

    code = "tray"


class ReassignError(UsageError):
    """The registry has the board at another place, or as revoked."""

    code = "board-elsewhere"


class RenewalError(NetzpulsError):
    """The board is not one whose identity can be renewed as it is."""

    code = "not-renewable"


class JournalError(NetzpulsError):
    """What is under way at the desk cannot be noted, or not be read."""

    code = "journal"


class EnrolmentError(NetzpulsError):
    """The board's files cannot be written into the city's folder."""

    code = "enrolment-failed"


class RegistryError(NetzpulsError):
    """The registry cannot be changed."""

    code = "registry"


class DiskError(NetzpulsError):
    """The board's file system is damaged, full, or not there."""

    code = "board-disk"


class DiskFullError(DiskError):
    """The board's file system has no room for what is to be written."""

    code = "board-disk-full"
