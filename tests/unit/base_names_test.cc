// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Names of bases that are no files of ours: NBD URIs, and what qemu-img says of files.

#include <gtest/gtest.h>

#include "common/source/nbd_uri.h"
#include "common/source/qemu_chain.h"
#include "tests/support/expect.h"

namespace addcow {
namespace {

TEST(NbdUri, BeginsWithOneOfFourSchemes) {
  for (const char* name : {"nbd://host", "nbds://host/export", "nbd+unix:///?socket=/s",
                           "nbds+unix:///x?socket=/s"})
    EXPECT_TRUE(IsNbdUri(name)) << name;
  for (const char* name : {"", "nbd:", "nbd:/x", "./nbd://host", "/nbd://host", "NBD://host",
                           "https://host/x", "nbd+ssh://host", "xnbd://host"})
    EXPECT_FALSE(IsNbdUri(name)) << name;
}

TEST(NbdUri, DependsOnNoWorkingDirectory) {
  for (const char* uri :
       {"nbd://host", "nbd+unix:///?socket=/run/s", "nbd+unix:///?socket=%2Frun%2Fs",
        "nbds://user@host/x?tls-psk-file=/keys&tls-certificates=/pki", "nbd://host/?other=x",
        "nbd://host/?socket"})
    EXPECT_OK(CheckNbdUri(uri)) << uri;
  for (const char* uri :
       {"nbd+unix:///?socket=s", "nbd+unix:///?socket=", "nbd+unix:///?a=/b&socket=../s",
        "nbds://host/?tls-psk-file=keys", "nbds://host/?tls-certificates=pki"}) {
    const Status checked = CheckNbdUri(uri);
    ASSERT_FALSE(checked) << uri;
    EXPECT_EQ(checked.error().code(), EINVAL);
  }
}

TEST(QemuInfo, WhatAnImageNames) {
  ASSERT_OK_AND_ASSIGN(const QemuImageInfo info,
                       ParseQemuInfo(R"({"filename": "/vm/o.qcow2", "backing-filename": "b.raw",
                        "full-backing-filename": "/vm/b.raw", "backing-filename-format": "raw",
                        "format-specific": {"type": "qcow2", "data": {"data-file": "d.raw"}}})",
                                     "/vm/o.qcow2", "/vm/"));
  EXPECT_EQ(info.backing, "/vm/b.raw");
  EXPECT_EQ(info.backing_as_named, "b.raw");
  EXPECT_EQ(info.backing_format, "raw");
  EXPECT_EQ(info.extents, std::vector<std::string>{"/vm/d.raw"});
}

TEST(QemuInfo, ExtentsThatAreOtherFiles) {
  ASSERT_OK_AND_ASSIGN(
      const QemuImageInfo info,
      ParseQemuInfo(R"({"format-specific": {"type": "vmdk", "data": {"extents": [
                        {"filename": "/vm/x.vmdk", "format": "SPARSE"},
                        {"filename": "/vm/x-f001.vmdk", "format": "FLAT"}, {}, 7]}}})",
                    "/vm/x.vmdk", "/vm/"));
  EXPECT_TRUE(info.backing.empty());
  EXPECT_EQ(info.extents, std::vector<std::string>{"/vm/x-f001.vmdk"});
}

TEST(QemuInfo, NothingThatIsUnderstoodIsNoReasonToEnd) {
  for (const char* json : {"", "[]", "7", "{", "\"x\"", "null"})
    EXPECT_FALSE(ParseQemuInfo(json, "/x", "/")) << json;
  for (const char* json : {"{}", R"({"backing-filename": 7})", R"({"format-specific": 7})",
                           R"({"format-specific": {"data": []}})",
                           R"({"format-specific": {"data": {"extents": {}}}})"}) {
    const auto info = ParseQemuInfo(json, "/x", "/");
    ASSERT_OK(info) << json;
    EXPECT_TRUE(info->backing.empty()) << json;
    EXPECT_TRUE(info->extents.empty()) << json;
  }
}

}  // namespace
}  // namespace addcow
