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
        "nbd://host/?socket", "nbd+unix:///?%73ocket=/s", "nbd+unix:///?a;socket=/s"})
    EXPECT_OK(CheckNbdUri(uri)) << uri;
  for (const char* uri :
       {"nbd+unix:///?socket=s", "nbd+unix:///?socket=", "nbd+unix:///?a=/b&socket=../s",
        "nbds://host/?tls-psk-file=keys", "nbds://host/?tls-certificates=pki",
        "nbd+unix:///?%73ocket=s", "nbd+unix:///?socke%74=%2e/s", "nbd+unix:///?a;socket=s",
        "nbds://host/?tls%2Dpsk%2dfile=keys"}) {
    const Status checked = CheckNbdUri(uri);
    ASSERT_FALSE(checked) << uri;
    EXPECT_EQ(checked.error().code(), EINVAL);
  }
}

TEST(NbdUri, IsTheSameInEverySpelling) {
  const auto same = [](std::initializer_list<const char*> uris) {
    for (const char* uri : uris) EXPECT_EQ(NormalNbdUri(uri), NormalNbdUri(*uris.begin()));
  };
  same({"nbd://localhost/x", "nbd://localhost:10809/x", "nbd://LOCALHOST/x", "nbd:///x",
        "nbd://localhost:/x", "nbd://localhost/%78", "nbd://local%68ost:010809/x",
        "nbd://localhost/x?", "nbd://localhost/x#y"});
  same({"nbd://host", "nbd://host/", "nbd://host:10809", "nbd://host?"});
  same({"nbd://host/a%2fb", "nbd://host/a/b", "nbd://host/a%2Fb"});
  same({"nbd://[::1]/x", "nbd://[::1]:10809/x"});
  same({"nbd+unix:///x?socket=/s", "nbd+unix:///x?socket=%2Fs", "nbd+unix:///x?socke%74=/s&",
        "nbd+unix:///x?socket=/other&socket=/s"});
  same({"nbds://u@h/x?tls-psk-file=/k&tls-certificates=/p",
        "nbds://%75@h/x?tls-certificates=/p&tls-psk-file=/k"});
}

TEST(NbdUri, IsAnotherOneWhereItLeadsElsewhere) {
  const std::initializer_list<const char*> uris = {
      "nbd://host/x",
      "nbd://host/X",
      "nbd://host//x",
      "nbd://host/x/",
      "nbd://host/",
      "nbd://host:1/x",
      "nbd://other/x",
      "nbds://host/x",
      "nbds://user@host/x",
      "nbd://[::1]/x",
      "nbd://[::1]:1/x",
      "nbd://host/x%253F",
      "nbd://host/x%3F",
      "nbd+unix:///x?socket=/s",
      "nbd+unix:///x?socket=/S",
      "nbd+unix:///x?socket=/s%26a=b",
      "nbds+unix:///x?socket=/s",
  };
  for (const char* a : uris)
    for (const char* b : uris) EXPECT_EQ(NormalNbdUri(a) == NormalNbdUri(b), a == b) << a << b;
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

// Bytes that are no UTF-8 are U+FFFD in JSON, and that may be another file's name.
TEST(QemuInfo, NoNameThatItCannotTell) {
  for (const char* json : {R"({"backing-filename": "b\ufffd.raw"})",
                           R"({"full-backing-filename": "/\ufffd/b.raw"})",
                           R"({"format-specific": {"data": {"data-file": "\ufffd"}}})",
                           R"({"format-specific": {"data": {"extents": [
                               {"filename": "/vm/x\ufffd"}]}}})"}) {
    const auto info = ParseQemuInfo(json, "/vm/o.qcow2", "/vm/");
    EXPECT_TRUE(FailsSaying(info, "whose real name is not UTF-8")) << json;
  }
}

TEST(QemuName, HasAProtocolBeforeAColonThatComesFirst) {
  EXPECT_EQ(QemuProtocolOf("nbd://host"), "nbd");
  EXPECT_EQ(QemuProtocolOf(":x"), "");
  for (const char* name : {"", "base.img", "./a:b", "/vm/a:b", "vm/a:b"})
    EXPECT_EQ(QemuProtocolOf(name), std::nullopt) << name;
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
