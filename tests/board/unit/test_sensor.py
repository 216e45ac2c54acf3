import asyncio
import struct
import unittest

import linkreport.report as wire
from agent import light
from agent.sensor import SINCE, bme280, crc8, read, words
from agent.supervisor import start
from linkreport.block import ERROR, SENSOR, SENSOR_FORMAT
from place import folder, furnish, remove
from port.null import NullPort

_ENODEV = 19
_NOTHING = 0xFFFF
_NO_TEMPERATURE = -32768


class FakeBus:
    """machine.I2C whose answers a test says: {(address, command): answer}.

    A command is what was written before a read. An answer that is a list gives one each time;
    an OSError is raised.
    """

    def __init__(self, answers):
        self.answers = answers
        self.written = []
        self._last = {}

    def writeto(self, address, data):
        self.written.append((address, bytes(data)))
        self._last[address] = bytes(data)
        if isinstance(self.answers.get((address, bytes(data))), OSError):
            raise self.answers[address, bytes(data)]
        if not any(known == address for known, _ in self.answers):
            raise OSError(_ENODEV)

    def readfrom(self, address, count):
        answer = self.answers.get((address, self._last[address]))
        if isinstance(answer, list):
            answer = answer.pop(0)
        if answer is None:
            raise OSError(_ENODEV)
        if isinstance(answer, OSError):
            raise answer
        return answer[:count]

    def readfrom_mem(self, address, register, count):
        self.writeto(address, bytes((register,)))
        return self.readfrom(address, count)

    def writeto_mem(self, address, register, data):
        self.writeto(address, bytes((register,)) + data)


class FakeFaults:
    def __init__(self):
        self.texts = []

    def note(self, error):
        self.texts.append(str(error))


class Thresholds:
    co2_ppm = (1000, 2000)


class Settings:
    thresholds = Thresholds
    light = 4

    def __init__(self, *sensors):
        self.sensors = sensors


def sensirion(*parts):
    return b"".join(part + bytes((crc8(part),)) for part in [struct.pack(">H", p) for p in parts])


# Sensirion, data sheet SCD4x, examples of read_measurement (500 ppm, 25 °C, 37 %),
# get_data_ready_status and get_serial_number.
READY = b"\xe4\xb8"
READ = b"\xec\x05"
START = b"\x21\xb1"
STOP = b"\x3f\x86"
SERIAL = b"\x36\x82"
NOT_READY = b"\x80\x00\xa2"
MEASURED = b"\x01\xf4\x33\x66\x67\xa2\x5e\xb9\x3c"
SERIAL_NUMBER = b"\xf8\x96\x31\x9f\x07\xc2\x3b\xbe\x89"


def scd4x(ready=None, measured=MEASURED):
    return {
        (0x62, SERIAL): SERIAL_NUMBER,
        (0x62, READY): sensirion(0x8006) if ready is None else ready,
        (0x62, READ): measured,
    }


# Bosch Sensortec, data sheet BMP280 (BST-BMP280-DS001), 3.12, whose temperature and pressure are
# compensated as the BME280's: 25.08 °C and 25767236/256 Pa. The last digit of that is not what the
# formula gives that stands beside it, compiled as C with 64-bit integers: 25767233.
TEMPERATURE = (27504, 26435, -1000)
PRESSURE = (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
HUMIDITY = (75, 362, 0, 313, 50, 30)
ADC_T, ADC_P = 519888, 415148


def calibration(humidity=HUMIDITY):
    h1, h2, h3, h4, h5, h6 = humidity
    raw = struct.pack("<Hhh", *TEMPERATURE) + struct.pack("<Hhhhhhhhh", *PRESSURE)
    raw += bytes((0, h1)) + struct.pack("<hBb", h2, h3, h4 >> 4)
    return raw + struct.pack("<Bbb", h4 & 15 | (h5 & 15) << 4, h5 >> 4, h6)


def data(adc_t, adc_p, adc_h):
    raw = bytes(((adc_p >> 12), adc_p >> 4 & 255, (adc_p & 15) << 4))
    raw += bytes(((adc_t >> 12), adc_t >> 4 & 255, (adc_t & 15) << 4))
    return raw + struct.pack(">H", adc_h)


def exact(adc_t, adc_p, adc_h, humidity=HUMIDITY):
    """Return °C, Pa and % by the floating-point formulas of the data sheet, 8.1."""
    t1, t2, t3 = TEMPERATURE
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = PRESSURE
    h1, h2, h3, h4, h5, h6 = humidity
    var1 = (adc_t / 16384.0 - t1 / 1024.0) * t2
    var2 = (adc_t / 131072.0 - t1 / 8192.0) * (adc_t / 131072.0 - t1 / 8192.0) * t3
    fine = var1 + var2
    var1 = fine / 2.0 - 64000.0
    var2 = var1 * var1 * p6 / 32768.0
    var2 = var2 + var1 * p5 * 2.0
    var2 = var2 / 4.0 + p4 * 65536.0
    var1 = (p3 * var1 * var1 / 524288.0 + p2 * var1) / 524288.0
    var1 = (1.0 + var1 / 32768.0) * p1
    p = 1048576.0 - adc_p
    p = (p - var2 / 4096.0) * 6250.0 / var1
    p += (p9 * p * p / 2147483648.0 + p * p8 / 32768.0 + p7) / 16.0
    h = fine - 76800.0
    h = (adc_h - (h4 * 64.0 + h5 / 16384.0 * h)) * (
        h2 / 65536.0 * (1.0 + h6 / 67108864.0 * h * (1.0 + h3 / 67108864.0 * h))
    )
    h = h * (1.0 - h1 * h / 524288.0)
    return fine / 5120.0, p, max(0.0, min(h, 100.0))


def bme280_at(address, chip=0x60, status=b"\x00"):
    whole = calibration()
    return {
        (address, b"\xd0"): bytes((chip,)),
        (address, b"\x88"): whole[:26],
        (address, b"\xe1"): whole[26:],
        (address, b"\xf3"): status,
        (address, b"\xf7"): data(ADC_T, ADC_P, 32000),
    }


class ChecksumTest(unittest.TestCase):
    def test_the_example_of_the_data_sheets(self):
        self.assertEqual(crc8(b"\xbe\xef"), 0x92)

    def test_words_are_checked_each(self):
        self.assertEqual(words(MEASURED), [500, 0x6667, 0x5EB9])
        for at in range(len(MEASURED)):
            raw = bytearray(MEASURED)
            raw[at] ^= 0x10
            with self.assertRaises(ValueError):
                words(raw)


class CompensationTest(unittest.TestCase):
    def test_the_example_of_the_data_sheet(self):
        found = bme280.compensate(calibration(), data(ADC_T, ADC_P, 32000))
        self.assertEqual(found[:2], (2508, 25767233))

    def test_signs_of_the_shared_nibbles(self):
        humidity = (75, 362, 0, -203, -707, 30)
        found = bme280.compensate(calibration(humidity), data(ADC_T, ADC_P, 1000))
        percent = exact(ADC_T, ADC_P, 1000, humidity)[2]
        self.assertTrue(0 < percent < 100)
        self.assertTrue(abs(found[2] / 1024 - percent) < 0.05, found)

    def test_agrees_with_the_formula_in_floating_point(self):
        for adc_t in range(400000, 640000, 24000):
            for adc_p, adc_h in ((250000, 25000), (415148, 30000), (600000, 36000)):
                celsius, pascal, percent = exact(adc_t, adc_p, adc_h)
                found = bme280.compensate(calibration(), data(adc_t, adc_p, adc_h))
                self.assertTrue(abs(found[0] / 100 - celsius) < 0.011, (adc_t, found))
                self.assertTrue(abs(found[1] / 256 - pascal) < 1, (adc_t, found))
                self.assertTrue(abs(found[2] / 1024 - percent) < 0.05, (adc_t, found))

    def test_humidity_is_cut_at_both_ends(self):
        self.assertEqual(bme280.compensate(calibration(), data(ADC_T, ADC_P, 0))[2], 0)
        self.assertEqual(bme280.compensate(calibration(), data(ADC_T, ADC_P, 65535))[2], 102400)

    def test_a_calibration_of_zeros_divides_by_nothing(self):
        self.assertEqual(bme280.compensate(bytes(33), data(ADC_T, ADC_P, 32000))[1], 0)


class SensorTest(unittest.TestCase):
    def setUp(self):
        self.port = NullPort()
        self.faults = FakeFaults()
        self.state = []

    def read(self, answers, *sensors):
        """Read once; return (failed bits, CO₂, temperature, humidity)."""
        self.bus = self.port.bus = FakeBus(answers) if answers is not None else None
        block = asyncio.run(read(self.port, Settings(*sensors), self.state, self.faults))
        return struct.unpack(SENSOR_FORMAT, block)

    def test_the_scd4x_is_started_once(self):
        found = self.read(scd4x(ready=NOT_READY), "scd4x")
        self.assertEqual(found, (0, _NOTHING, _NO_TEMPERATURE, _NOTHING))
        self.assertIn((0x62, START), self.bus.written)
        self.assertEqual(self.read(scd4x(), "scd4x"), (0, 500, 2500, 370))
        self.assertNotIn((0x62, START), self.bus.written)
        self.assertEqual(self.faults.texts, [])

    def test_one_that_measures_since_before_a_restart_refuses_to_start_and_is_read(self):
        answers = scd4x()
        answers[0x62, SERIAL] = answers[0x62, START] = OSError(_ENODEV)
        self.assertEqual(self.read(answers, "scd4x"), (0, 500, 2500, 370))
        self.assertEqual(self.faults.texts, [])

    def test_one_that_never_measures_is_said_and_started_anew(self):
        self.read(scd4x(ready=NOT_READY), "scd4x")
        self.state[SINCE] -= 20001
        self.assertEqual(self.read(scd4x(ready=NOT_READY), "scd4x")[0], 1)
        self.assertIn((0x62, STOP), self.bus.written)
        self.assertIn("it does not measure", self.faults.texts[0])
        self.read(scd4x(ready=NOT_READY), "scd4x")
        self.assertIn((0x62, START), self.bus.written)

    def test_an_absent_sensor_is_said_once_and_used_again_when_it_is_back(self):
        for _ in range(3):
            self.assertEqual(
                self.read({}, "scd4x", "sht4x"), (3, _NOTHING, _NO_TEMPERATURE, _NOTHING)
            )
        self.assertEqual(len(self.faults.texts), 2)
        self.assertIn("sensor sht4x: no answer", self.faults.texts[0])
        self.assertEqual(self.read(scd4x(), "scd4x", "sht4x"), (2, 500, 2500, 370))
        self.assertIn((0x62, START), self.bus.written)
        self.assertEqual(len(self.faults.texts), 2)
        self.read({}, "scd4x", "sht4x")
        self.assertEqual(len(self.faults.texts), 3)

    def test_a_wrong_checksum_is_no_value(self):
        wrong = MEASURED[:2] + b"\x34" + MEASURED[3:]
        self.assertEqual(self.read(scd4x(measured=wrong), "scd4x")[:2], (1, _NOTHING))
        self.assertIn("sensor scd4x: ValueError wrong checksum", self.faults.texts[0])

    def test_what_cannot_be_is_no_value(self):
        for co2_ppm, raw_t in ((0, 0x6667), (249, 0x6667), (40001, 0x6667), (500, 0), (500, 65535)):
            self.state = []
            measured = sensirion(co2_ppm, raw_t, 0x5EB9)
            self.assertEqual(self.read(scd4x(measured=measured), "scd4x")[:2], (1, _NOTHING))

    def test_the_better_thermometer_is_believed(self):
        answers = scd4x()
        # 21.5 °C and 42 % by the formulas of the data sheet.
        answers[0x44, b"\xfd"] = sensirion(24903, 25166)
        self.assertEqual(self.read(answers, "scd4x", "sht4x"), (0, 500, 2150, 420))
        answers[0x44, b"\xfd"] = None
        self.assertEqual(self.read(answers, "scd4x", "sht4x"), (2, 500, 2500, 370))

    def test_humidity_of_the_sht4x_is_cut_at_both_ends(self):
        for raw, permille in ((0, 0), (65535, 1000)):
            answers = {(0x44, b"\xfd"): sensirion(24903, raw)}
            self.assertEqual(self.read(answers, "sht4x"), (0, _NOTHING, 2150, permille))

    def test_the_bme280_gives_the_scd4x_the_pressure(self):
        answers = bme280_at(0x76)
        answers.update(scd4x())
        failed, co2_ppm, centi_celsius, permille = self.read(answers, "scd4x", "bme280")
        self.assertEqual((failed, co2_ppm, centi_celsius), (0, 500, 2508))
        percent = exact(ADC_T, ADC_P, 32000)[2]
        self.assertTrue(abs(permille - 10 * percent) < 1, permille)
        word = struct.pack(">H", 1007)
        self.assertIn((0x62, b"\xe0\x00" + word + bytes((crc8(word),))), self.bus.written)

    def test_the_bme280_is_found_at_either_address(self):
        self.assertEqual(self.read(bme280_at(0x77), "bme280")[:3], (0, _NOTHING, 2508))

    def test_another_chip_is_named(self):
        self.assertEqual(self.read(bme280_at(0x76, chip=0x58), "bme280")[0], 4)
        self.assertIn("sensor bme280: ValueError chip 0x58 is no BME280", self.faults.texts[0])

    def test_a_bme280_that_never_ends_is_said(self):
        self.assertEqual(self.read(bme280_at(0x76, status=b"\x08"), "bme280")[0], 4)
        self.assertIn("it does not measure", self.faults.texts[0])

    def test_without_pins_all_sensors_fail(self):
        self.assertEqual(self.read(None, "scd4x", "bme280")[0], 5)
        self.assertIn("sensor bme280: ValueError no pins for I2C", self.faults.texts[0])

    def test_a_bus_that_cannot_be_made_stops_nothing(self):
        def broken():
            raise ValueError("invalid pin")

        self.port.i2c = broken
        block = asyncio.run(read(self.port, Settings("scd4x"), self.state, self.faults))
        self.assertEqual(block[0], 1)
        self.assertIn("invalid pin", self.faults.texts[0])

    def test_a_driver_that_hangs_is_left(self):
        async def hang(i2c, state):
            await asyncio.sleep(60)

        from agent.sensor import sht4x

        good, sht4x.read = sht4x.read, hang
        start_ms = self.port.uptime_ms()
        try:
            failed = self.read(scd4x(), "sht4x", "scd4x")[0]
        finally:
            sht4x.read = good
        self.assertEqual(failed, 2)
        self.assertTrue(self.port.uptime_ms() - start_ms < 1000)
        self.assertIn("sensor sht4x: no answer in time", self.faults.texts[0])

    def test_the_light_follows_and_goes_dark_when_nothing_is_known(self):
        for co2_ppm in (500, 1200, 2300):
            self.read(scd4x(measured=sensirion(co2_ppm, 0x6667, 0x5EB9)), "scd4x")
        self.read(scd4x(ready=NOT_READY), "scd4x")  # read too early: nothing changes
        self.read({}, "scd4x")
        self.assertEqual(self.port.lights, [light.GREEN, light.YELLOW, light.RED, light.DARK])


class ReportTest(unittest.TestCase):
    def setUp(self):
        self.root = folder()
        self.port = NullPort()
        self.port.networks = []  # so that a cycle ends soon

    def tearDown(self):
        remove(self.root)

    def blocks(self, *buses, **changes):
        """Run a cycle with each bus; return the blocks of each report by kind."""
        furnish(self.root, period_s=1, **changes)

        async def go():
            board = start(self.port, self.root, 3)
            for self.port.bus in buses:
                await board.cycle()
            return board

        board = asyncio.run(go())
        raw = wire.split(board.spool.batch(0, 100000)[0])
        return [dict(wire.extensions(wire.unpack(each).extensions)) for each in raw]

    def test_reports_carry_what_the_sensors_say_and_their_failure_once(self):
        good = FakeBus(scd4x())
        found = self.blocks(
            good, None, None, good, sensors=["scd4x"], i2c={"sda": 21, "scl": 22}, light=4
        )
        values = [struct.unpack(SENSOR_FORMAT, blocks[SENSOR]) for blocks in found]
        self.assertEqual(
            [value[:2] for value in values], [(0, 500), (1, 65535), (1, 65535), (0, 500)]
        )
        self.assertEqual([ERROR in blocks for blocks in found], [False, True, False, False])
        self.assertIn(b"sensor scd4x", found[1][ERROR])
        self.assertEqual(self.port.lights, [1, 0, 0, 1])

    def test_without_sensors_there_is_no_block(self):
        self.assertNotIn(SENSOR, self.blocks(FakeBus(scd4x()))[0])

    def test_a_broken_driver_stops_no_report(self):
        import agent.agent as module

        def broken(name):
            if name == "agent.sensor":
                raise MemoryError("memory allocation failed")
            return good(name)

        good, module.borrow = module.borrow, broken
        try:
            (blocks,) = self.blocks(None, sensors=["scd4x"], i2c={"sda": 21, "scl": 22})
        finally:
            module.borrow = good
        self.assertNotIn(SENSOR, blocks)
        self.assertIn(b"MemoryError", blocks[ERROR])


class LightTest(unittest.TestCase):
    def levels(self, *values):
        before, found = light.DARK, []
        for co2_ppm in values:
            before = light.level(co2_ppm, (1000, 2000), before)
            found.append(before)
        return found

    def test_the_thresholds(self):
        self.assertEqual(self.levels(999, 1000, 1999, 2000, 9000), [1, 2, 2, 3, 3])
        self.assertEqual(self.levels(None), [light.DARK])

    def test_does_not_flicker_between_two_colours(self):
        self.assertEqual(self.levels(1000, 960, 1010, 950, 949, 999), [2, 2, 2, 2, 1, 1])
        self.assertEqual(self.levels(2000, 1951, 1949, 1999), [3, 3, 2, 2])

    def test_falls_by_two(self):
        self.assertEqual(self.levels(2500, 960), [3, 2])
        self.assertEqual(self.levels(2500, 900), [3, 1])
