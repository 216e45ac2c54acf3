"""As much of unittest as the shared tests use, for MicroPython, which has none."""

import sys


class SkipTest(Exception):
    """A test that this interpreter cannot run."""


class _Raises:
    def __init__(self, kind):
        self._kind = kind
        self.exception = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind is None:
            raise AssertionError("%s was not raised" % self._kind)
        self.exception = error
        return issubclass(kind, self._kind)


class TestCase:
    """A test case; names are unittest's."""

    def setUp(self):
        """Nothing to set up."""

    def tearDown(self):
        """Nothing to tear down."""

    def skipTest(self, reason):
        raise SkipTest(reason)

    def fail(self, message=""):
        raise AssertionError(message)

    def assertEqual(self, first, second, message=""):
        if first != second:
            self.fail("%r != %r %s" % (first, second, message))

    def assertNotEqual(self, first, second, message=""):
        if first == second:
            self.fail("%r == %r %s" % (first, second, message))

    def assertTrue(self, value, message=""):
        if not value:
            self.fail("%r is not true %s" % (value, message))

    def assertFalse(self, value, message=""):
        if value:
            self.fail("%r is not false %s" % (value, message))

    def assertIn(self, member, container, message=""):
        if member not in container:
            self.fail("%r not in %r %s" % (member, container, message))

    def assertNotIn(self, member, container, message=""):
        if member in container:
            self.fail("%r in %r %s" % (member, container, message))

    def assertLessEqual(self, first, second, message=""):
        if not first <= second:
            self.fail("%r > %r %s" % (first, second, message))

    def assertIsNone(self, value, message=""):
        if value is not None:
            self.fail("%r is not None %s" % (value, message))

    def assertRaises(self, kind):
        return _Raises(kind)


def run(names):
    """Run the tests of the modules named; return the process's exit code."""
    ran = skipped = failed = 0
    for name in names:
        module = __import__(name)
        for kind in [getattr(module, each) for each in dir(module)]:
            if not (isinstance(kind, type) and issubclass(kind, TestCase) and kind is not TestCase):
                continue
            for each in sorted(dir(kind)):
                if not each.startswith("test"):
                    continue
                case = kind()
                ran += 1
                try:
                    case.setUp()
                    try:
                        getattr(case, each)()
                    finally:
                        case.tearDown()
                except SkipTest as error:
                    skipped += 1
                    print("skipped", name, each, error)
                except Exception as error:
                    failed += 1
                    print("FAILED", name, each)
                    sys.print_exception(error)
    print("ran %d, skipped %d, failed %d" % (ran, skipped, failed))
    return 1 if failed or not ran else 0
