"""Dates of a certificate, which MicroPython does not tell. On loan."""


def not_before_s(certificate):
    """Return from when on a certificate (DER) is valid, in Unix seconds; 0 if it does not say."""
    at = _validity(certificate)
    return _time_s(certificate, at) if at else 0


def not_after_s(certificate):
    """Return until when a certificate (DER) is valid, in Unix seconds; 0 if it does not say."""
    at = _validity(certificate)
    return _time_s(certificate, at + 15) if at else 0


def _validity(certificate):
    """Return where the two times of validity begin, 0 if there are none.

    Source: RFC 5280 4.1.2.5: UTCTime "YYMMDDHHMMSSZ", from 2050 on with a year of four digits.
    """
    for at in range(1, len(certificate) - 28):
        if (
            certificate[at : at + 2] == b"\x17\x0d"
            and certificate[at + 14] == 0x5A
            and certificate[at + 15 : at + 17] in (b"\x17\x0d", b"\x18\x0f")
            and _time_s(certificate, at)
            and _time_s(certificate, at + 15)
        ):
            return at
    return 0


def _time_s(certificate, at):
    """Return the Unix seconds of a time in a certificate, 0 if it is none."""
    size = certificate[at + 1]
    text = certificate[at + 2 : at + size + 1]
    if len(text) != size - 1 or not all(48 <= digit <= 57 for digit in text):
        return 0
    year = int(text[: size - 11]) + (2000 if size == 13 else 0)
    month, day, hour, minute, second = (int(text[i : i + 2]) for i in range(size - 11, size - 1, 2))
    if year < 2000 or not 1 <= month <= 12:
        return 0
    return unix_s(year, month, day) + hour * 3600 + minute * 60 + second


def unix_s(year, month, day):
    """Return the Unix seconds at which a day begins, for years from 2000 to 2099."""
    lengths = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    leap = 1 if year % 4 == 0 and month > 2 else 0
    days = (year - 2000) * 365 + (year - 1997) // 4 + sum(lengths[: month - 1]) + leap + day - 1
    return 946684800 + days * 86400
