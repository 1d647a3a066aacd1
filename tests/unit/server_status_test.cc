// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/control/status_json and tools/status_text: a server's status as JSON and back, for
// people, and for Prometheus.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "common/control/status_json.h"
#include "tools/status_file.h"
#include "tools/status_text.h"

namespace addcow {
namespace {

// Each value is another one.
ServerStatus ExampleStatus() {
  ServerStatus status{.version = "0.2.0",
                      .add_cow = "/vm/x.add-cow",
                      .uptime = 61.5,
                      .size = uint64_t{1} << 40,
                      .writable = true};
  uint64_t next = 1;
  for (RequestCounts& counts : status.requests) {
    counts.bytes = next++ * 1000;
    counts.errors = next++;
    counts.latencies.nanoseconds = next++ * 1000000;
    for (uint64_t& bucket : counts.latencies.buckets) bucket = next++;
  }
  ImageCounts& image = status.image;
  image.allocation = {.cluster_size = 65536,
                      .clusters = 1000,
                      .allocated = 900,
                      .partial = 50,
                      .subclusters = 77,
                      .unpublished_clusters = 3,
                      .unpublished_subclusters = 4,
                      .unpublished_bytes = 3 * 65536 + 4 * 4096};
  for (uint64_t* value :
       {&image.read_image, &image.read_backing, &image.read_nowhere, &image.written_image,
        &image.written_add_cow, &image.zeroed_image, &image.cloned_image, &image.flushes_shared,
        &image.flush_errors, &image.flushes.nanoseconds, &image.source.connections,
        &image.source.reconnects, &image.source.retries, &status.fetch.fetched,
        &status.fetch.kept, &status.fetch.failures})
    *value = next++;
  for (uint64_t& bucket : image.flushes.buckets) bucket = next++;
  status.copy_on_read = true;
  status.fill = {.mode = FillMode::kAll,
                 .state = FillState::kRunning,
                 .position = next++,
                 .left = 4096000,
                 .copied = next++,
                 .rate = 1000,
                 .limit = next++,
                 .retries = next++,
                 .error = "a \"reason\""};
  return status;
}

TEST(StatusJson, IsReadAsItWasWritten) {
  const ServerStatus status = ExampleStatus();
  const ServerStatus read = StatusFromJson(ControlJson::parse(ToJson(status).dump()));
  EXPECT_EQ(read.version, status.version);
  EXPECT_EQ(read.add_cow, status.add_cow);
  EXPECT_EQ(read.uptime, status.uptime);
  EXPECT_EQ(read.size, status.size);
  EXPECT_EQ(read.writable, status.writable);
  EXPECT_EQ(read.requests, status.requests);
  EXPECT_EQ(read.image, status.image);
  EXPECT_EQ(read.copy_on_read, status.copy_on_read);
  EXPECT_EQ(read.fetch, status.fetch);
  EXPECT_EQ(ToJson(read), ToJson(status));
}

TEST(StatusJson, HasWhatFollowsFromTheRest) {
  const auto json = ToJson(ExampleStatus());
  EXPECT_EQ(json["fill"]["seconds-left"], 4096.0);
  EXPECT_EQ(json["requests"]["read"]["count"], ExampleStatus().requests[0].latencies.count());
  EXPECT_GT(json["write-amplification"], 0.0);
  const auto empty = ToJson(ServerStatus());
  EXPECT_TRUE(empty["write-amplification"].is_null());
  EXPECT_TRUE(empty["fill"]["seconds-left"].is_null());
}

TEST(StatusJson, WhateverItIsIsNoError) {
  const auto empty = ToJson(ServerStatus());
  for (const char* text :
       {"null", "5", "[]", "{}", "{\"size\": -1}", "{\"size\": \"x\"}", "{\"fill\": 5}",
        "{\"fill\": {\"state\": \"dancing\", \"mode\": 1}}", "{\"requests\": {\"read\": []}}",
        "{\"requests\": {\"read\": {\"histogram\": [1]}}}"})
    EXPECT_EQ(ToJson(StatusFromJson(ControlJson::parse(text))), empty) << text;
}

TEST(StatusText, HumanTellsWhatMatters) {
  const std::string text = HumanStatus(ExampleStatus());
  for (const char* words :
       {"/vm/x.add-cow: 1 TiB, writable, up 1:02", "90.0% (900 of 1000 clusters), 50 in part",
        "all, running, 3.91 MiB left, 0.977 KiB/s, 1:08:16 to go", "read", "trim"})
    EXPECT_NE(text.find(words), std::string::npos) << words << " in:\n" << text;
  // Of what there was none.
  EXPECT_EQ(HumanStatus(ServerStatus()).find("trim"), std::string::npos);
}

TEST(StatusText, OnlyAllOfItIs100Percent) {
  ServerStatus status;
  const auto tells = [&](uint64_t allocated, uint64_t clusters) {
    status.image.allocation.allocated = allocated;
    status.image.allocation.clusters = clusters;
    const std::string text = HumanStatus(status);
    const size_t begin = text.find("allocated  ") + 11;
    return text.substr(begin, text.find('%') - begin);
  };
  EXPECT_EQ(tells(0, 1000), "0.0");
  EXPECT_EQ(tells(1, 3), "33.3");
  EXPECT_EQ(tells(2, 3), "66.6");
  EXPECT_EQ(tells(999, 1000), "99.9");
  EXPECT_EQ(tells(999999, 1000000), "99.9");
  EXPECT_EQ(tells((uint64_t{1} << 62) - 1, uint64_t{1} << 62), "99.9");
  EXPECT_EQ(tells(1000000, 1000000), "100.0");
  EXPECT_EQ(tells(0, 0), "100.0");
}

// What --to may replace.
TEST(StatusText, IsKnownInEachForm) {
  for (const ServerStatus& status : {ExampleStatus(), ServerStatus()}) {
    EXPECT_TRUE(IsStatusText(HumanStatus(status)));
    EXPECT_TRUE(IsStatusText(PrometheusStatus(status)));
    EXPECT_TRUE(IsStatusText(ToJson(status).dump() + "\n"));
    EXPECT_TRUE(IsStatusText(ToJson(status).dump(4) + "\n"));
  }
  const std::string json = ToJson(ExampleStatus()).dump();
  for (const std::string& text :
       {std::string(), std::string(1, '\0'), std::string("ADDCOW"), std::string("\n"),
        std::string("{}"), std::string("{\"version\": 1, \"add-cow\": \"x\"}"), json + json,
        json.substr(0, json.size() - 1), std::string("# HELP node_load1 of another\n"),
        std::string("x:\nallocated  much\n"), "x\n" + HumanStatus(ExampleStatus())})
    EXPECT_FALSE(IsStatusText(text)) << text;
}

// Clusters that clients have written in part since.
TEST(StatusText, AFillThatIsDoneTellsWhatIsLeftAgain) {
  FillStatus fill;
  fill.mode = FillMode::kTouched;
  fill.state = FillState::kDone;
  EXPECT_EQ(HumanFill(fill), "touched, done");
  fill.left = 128 * kKiB;
  EXPECT_EQ(HumanFill(fill), "touched, done, 128 KiB left");
}

TEST(StatusText, HumanHasNoControlCharacters) {
  ServerStatus status;
  status.add_cow = "x\n\033[31m.add-cow";
  status.fill.state = FillState::kWaiting;
  status.fill.error = "a\nb";
  for (const char c : HumanStatus(status))
    EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= ' ');
  EXPECT_EQ(HumanFill(status.fill).find('\n'), std::string::npos);
}

// The rules of the format that a parser of Prometheus insists on.
TEST(StatusText, PrometheusIsWellFormed) {
  std::istringstream lines(PrometheusStatus(ExampleStatus()));
  std::set<std::string> named;
  std::set<std::string> samples;
  std::string family;
  std::string type;
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    if (line.starts_with("# HELP ")) {
      words.ignore(7);
      words >> family;
      EXPECT_TRUE(named.insert(family).second) << family << " twice";
      continue;
    }
    if (line.starts_with("# TYPE ")) {
      std::string name;
      words.ignore(7);
      words >> name >> type;
      EXPECT_EQ(name, family);
      EXPECT_EQ(family.ends_with("_total"), type == "counter") << family;
      continue;
    }
    const std::string name = line.substr(0, line.find('{'));
    const std::string key = line.substr(0, line.rfind(' '));
    EXPECT_TRUE(samples.insert(key).second) << key << " twice";
    EXPECT_TRUE(name == family ||
                (type == "histogram" && (name == family + "_bucket" ||
                                         name == family + "_sum" || name == family + "_count")))
        << line;
    EXPECT_NE(line.find("image=\"/vm/x.add-cow\""), std::string::npos) << line;
    EXPECT_NO_THROW((void)std::stod(line.substr(line.rfind(' ') + 1))) << line;
  }
  EXPECT_GT(named.size(), 30u);
}

TEST(StatusText, PrometheusHistogramsAddUp) {
  const std::string text = PrometheusStatus(ExampleStatus());
  const uint64_t count = ExampleStatus().requests[0].latencies.count();
  const std::string image = "{image=\"/vm/x.add-cow\",op=\"read\"";
  for (const std::string& line :
       {"addcow_request_duration_seconds_bucket" + image + ",le=\"1e-06\"} 4\n",
        "addcow_request_duration_seconds_bucket" + image + ",le=\"2e-06\"} 9\n",
        "addcow_request_duration_seconds_bucket" + image + ",le=\"+Inf\"} " +
            std::to_string(count) + "\n",
        "addcow_request_duration_seconds_count" + image + "} " + std::to_string(count) + "\n",
        "addcow_requests_total" + image + "} " + std::to_string(count) + "\n",
        std::string("addcow_fill_left_seconds{image=\"/vm/x.add-cow\"} 4096\n")})
    EXPECT_NE(text.find(line), std::string::npos) << line << " in:\n" << text.substr(0, 3000);
}

TEST(StatusText, PrometheusLabelsAreEscaped) {
  ServerStatus status;
  status.add_cow = "a\"b\\c\nd";
  EXPECT_NE(PrometheusStatus(status).find("{image=\"a\\\"b\\\\c\\nd\"}"), std::string::npos);
}

}  // namespace
}  // namespace addcow
