import sys
import unittest

from agent.loan import borrow, give_back

IS_SMALL = sys.implementation.name == "micropython"


class LoanTest(unittest.TestCase):
    def test_what_is_borrowed_works_and_goes_again_where_memory_is_small(self):
        for _ in range(3):
            term = borrow("linkreport.term")
            self.assertEqual(term.reason_name(20), "wrong-key")
            give_back("linkreport.term")
            self.assertEqual("linkreport.term" in sys.modules, not IS_SMALL)
            self.assertEqual(hasattr(sys.modules["linkreport"], "term"), not IS_SMALL)

    def test_what_is_not_there_may_be_given_back(self):
        give_back("linkreport.nothing", "linkreport.term", "linkreport.term")
        self.assertEqual(borrow("linkreport.term").LAYERS[1], "radio")

    def test_what_it_imports_stays_in_use(self):
        from linkreport.frame import tag_of

        borrow("linkreport.report")
        give_back("linkreport.report")
        self.assertTrue(borrow("linkreport.report").tag_of is tag_of)
