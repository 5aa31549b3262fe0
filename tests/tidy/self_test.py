#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rules catch what they are there to catch."""
import unittest

import layers
import sizes


class Layers(unittest.TestCase):
    def caught(self, path, line):
        return list(layers.offences(path, line))

    def test_a_pure_layer_may_not_reach_out(self):
        self.assertTrue(self.caught("server/ring/plan.cc", "#include <thread>"))
        self.assertTrue(self.caught("server/ring/plan.cc", '#include "server/worker/engine.h"'))
        self.assertTrue(self.caught("kernels/cpu/a.cc", '#include "server/ring/plan.h"'))

    def test_vendors_stay_behind_their_seam(self):
        self.assertTrue(self.caught("server/worker/engine.cc", "#include <grpcpp/grpcpp.h>"))
        self.assertTrue(self.caught("server/worker/engine.cc", "#include <prometheus/counter.h>"))
        self.assertTrue(self.caught("client/src/client.cc", '#include "server/coordinator/reducer.h"'))

    def test_the_allowed_passes(self):
        self.assertFalse(self.caught("server/worker/engine.cc", '#include "server/ring/plan.h"'))
        self.assertFalse(self.caught("server/rpc/a.cc", "#include <grpcpp/grpcpp.h>"))


class Sizes(unittest.TestCase):
    def test_functions_are_measured(self):
        body = ["  x();"] * 120
        lines = ["namespace a {", "int F(int x,", "      int y) {", *body, "}", "class C {", "  int G() {", *body, "  }", "};", "}"]
        self.assertEqual([(2, 123), (126, 122)], [(first, length) for first, length, _ in sizes.functions(lines)])

    def test_a_class_is_not_a_function(self):
        self.assertEqual([], list(sizes.functions(["class Big : public Base {", *["  int x;"] * 200, "};"])))


if __name__ == "__main__":
    unittest.main()
