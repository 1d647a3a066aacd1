// SPDX-License-Identifier: LGPL-2.1-or-later
//
// GoogleTest assertions about Result and Status. They show the error's whole
// message, which a comparison of booleans would not.

#ifndef ADDCOW_TESTS_SUPPORT_EXPECT_H
#define ADDCOW_TESTS_SUPPORT_EXPECT_H

#include <gtest/gtest.h>

#include <string>

#include "common/base/error.h"

namespace addcow {

template <typename T>
testing::AssertionResult IsOk(const Result<T>& result) {
  if (result) return testing::AssertionSuccess();
  return testing::AssertionFailure() << result.error().Message();
}

template <typename T>
testing::AssertionResult FailsWith(const Result<T>& result, int code) {
  if (!result && result.error().code() == code) return testing::AssertionSuccess();
  if (result) return testing::AssertionFailure() << "succeeded, expected errno " << code;
  return testing::AssertionFailure() << "errno is " << result.error().code() << ", expected "
                                     << code << ": " << result.error().Message();
}

// Whether the result is an error whose message has `text` in it.
template <typename T>
testing::AssertionResult FailsSaying(const Result<T>& result, const std::string& text) {
  if (result) return testing::AssertionFailure() << "succeeded, expected: " << text;
  const std::string message = result.error().Message();
  if (message.find(text) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << "message is: " << message << "\nexpected in it: " << text;
}

}  // namespace addcow

#define EXPECT_OK(expr) EXPECT_TRUE(::addcow::IsOk(expr))
#define ASSERT_OK(expr) ASSERT_TRUE(::addcow::IsOk(expr))

// Declares `decl` with the value of `expr`, or ends the test.
#define ASSERT_OK_AND_ASSIGN(decl, expr) \
  ASSERT_OK_AND_ASSIGN_(ADDCOW_CONCAT(asserted_, __LINE__), decl, expr)
#define ASSERT_OK_AND_ASSIGN_(result, decl, expr) \
  auto result = (expr);                           \
  ASSERT_TRUE(::addcow::IsOk(result));            \
  decl = std::move(*result)

#endif  // ADDCOW_TESTS_SUPPORT_EXPECT_H
