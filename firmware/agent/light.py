"""The CO₂ light: tells a class when to open the windows.

    "light": 4, "thresholds": {…, "co2_ppm": [1000, 2000]}

Green below the first threshold, yellow below the second, red from there on; dark: not known. It
turns to the better colour only well below a threshold, so that it does not flicker between two.

Source: Umweltbundesamt, Ad-hoc-AG IRK/AOLG: Gesundheitliche Bewertung von Kohlendioxid in der
Innenraumluft, Bundesgesundheitsblatt 51 (2008), 1358-1369: below 1000 ppm harmless, 1000 to 2000
elevated, above 2000 unacceptable.
"""

from micropython import const

DARK, GREEN, YELLOW, RED = 0, 1, 2, 3

_HYSTERESIS_PPM = const(50)


def level(co2_ppm, thresholds, before):
    """Return the level for a value (None: not known), with the one shown before."""
    if co2_ppm is None:
        return DARK
    found = GREEN
    for worse, limit_ppm in enumerate(thresholds, YELLOW):
        if co2_ppm >= limit_ppm - (_HYSTERESIS_PPM if before >= worse else 0):
            found = worse
    return found
