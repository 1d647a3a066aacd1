#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A run of the control fuzzer as a test.

. "$(dirname "$0")/run-fuzzer.sh" control
