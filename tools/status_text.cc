// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See status_text.h.

#include "tools/status_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "common/base/printable.h"
#include "common/base/units.h"
#include "common/control/status_json.h"
#include "tools/output.h"

namespace addcow {

namespace {

// 12 us, 3.4 ms or 1.2 s.
std::string HumanLatency(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.3g} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} s", seconds);
}

// What `share` of them took less than, to a power of two.
std::string Quantile(const Latencies& latencies, double share) {
  const auto wanted = share * static_cast<double>(latencies.count());
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket + 1 < kLatencyBuckets; bucket++) {
    seen += latencies.buckets[bucket];
    if (static_cast<double>(seen) >= wanted)
      return "<" + HumanLatency(std::chrono::duration<double>(LatencyBound(bucket)).count());
  }
  return "longer";
}

double Mean(const Latencies& latencies) {
  return latencies.seconds() / static_cast<double>(latencies.count());
}

// To a tenth; 100 only where it is all.
double Percent(uint64_t part, uint64_t whole) {
  if (part >= whole) return 100;
  const double tenths = 1000 * static_cast<double>(part) / static_cast<double>(whole);
  return std::min(std::floor(tenths), 999.0) / 10;
}

// The exposition format, line by line.
class Metrics {
 public:
  explicit Metrics(const std::string& image) : image_("image=\"" + Escaped(image) + "\"") {}

  void Begin(const char* name, const char* type, const char* help) {
    name_ = name;
    fmt::format_to(std::back_inserter(text_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help,
                   type);
  }
  template <typename T>
  void Sample(T value, std::string_view label = "", std::string_view of = "",
              std::string_view suffix = "") {
    fmt::format_to(std::back_inserter(text_), "{}{}{{{}{}}} {}\n", name_, suffix, image_,
                   label.empty() ? "" : fmt::format(",{}=\"{}\"", label, of), value);
  }
  template <typename T>
  void Counter(const char* name, const char* help, T value) {
    Begin(name, "counter", help);
    Sample(value);
  }
  template <typename T>
  void Gauge(const char* name, const char* help, T value) {
    Begin(name, "gauge", help);
    Sample(value);
  }
  // `labels` come before `le`, with a comma before each.
  void Histogram(const Latencies& latencies, const std::string& labels) {
    uint64_t seen = 0;
    const auto line = [&](std::string_view suffix, const std::string& le, auto value) {
      fmt::format_to(std::back_inserter(text_), "{}{}{{{}{}{}}} {}\n", name_, suffix, image_,
                     labels, le, value);
    };
    for (size_t bucket = 0; bucket + 1 < kLatencyBuckets; bucket++) {
      seen += latencies.buckets[bucket];
      const std::chrono::duration<double> bound = LatencyBound(bucket);
      line("_bucket", fmt::format(",le=\"{}\"", bound.count()), seen);
    }
    line("_bucket", ",le=\"+Inf\"", latencies.count());
    line("_sum", "", latencies.seconds());
    line("_count", "", latencies.count());
  }

  std::string Text() { return std::move(text_); }

 private:
  static std::string Escaped(const std::string& value) {
    std::string escaped;
    for (const char c : value) {
      if (c == '\\' || c == '"') escaped += '\\';
      if (c == '\n')
        escaped += "\\n";
      else
        escaped += c;
    }
    return escaped;
  }

  const std::string image_;
  std::string name_;
  std::string text_;
};

void AddRequests(Metrics& metrics, const ServerStatus& status) {
  const auto each = [&](auto value) {
    for (size_t kind = 0; kind < kRequestKinds; kind++)
      metrics.Sample(value(status.requests[kind]), "op", kRequestKindNames[kind]);
  };
  metrics.Begin("addcow_requests_total", "counter", "Requests of clients.");
  each([](const RequestCounts& counts) { return counts.latencies.count(); });
  metrics.Begin("addcow_request_bytes_total", "counter", "Bytes of requests that were done.");
  each([](const RequestCounts& counts) { return counts.bytes; });
  metrics.Begin("addcow_request_errors_total", "counter", "Requests that failed.");
  each([](const RequestCounts& counts) { return counts.errors; });
  metrics.Begin("addcow_request_duration_seconds", "histogram",
                "How long requests took, from the server's call to its return.");
  for (size_t kind = 0; kind < kRequestKinds; kind++)
    metrics.Histogram(status.requests[kind].latencies,
                      fmt::format(",op=\"{}\"", kRequestKindNames[kind]));
}

void AddImage(Metrics& metrics, const ImageCounts& image) {
  metrics.Begin("addcow_read_bytes_total", "counter",
                "Bytes read, by where from; nowhere: zeroes that no file has.");
  metrics.Sample(image.read_image, "from", "image");
  metrics.Sample(image.read_backing, "from", "backing");
  metrics.Sample(image.read_nowhere, "from", "nowhere");
  metrics.Begin("addcow_written_bytes_total", "counter", "Bytes written, by the file.");
  metrics.Sample(image.written_image, "to", "image");
  metrics.Sample(image.written_add_cow, "to", "add-cow");
  metrics.Counter("addcow_zeroed_bytes_total", "Bytes of the image file that were zeroed.",
                  image.zeroed_image);
  metrics.Counter("addcow_shared_bytes_total",
                  "Bytes copied by sharing the backing file's storage.", image.cloned_image);
  const AllocationCounts& allocation = image.allocation;
  metrics.Gauge("addcow_cluster_size_bytes", "Size of a cluster.", allocation.cluster_size);
  metrics.Begin("addcow_clusters", "gauge",
                "Clusters of the disk; partial: a part is in the image file.");
  metrics.Sample(allocation.allocated, "state", "allocated");
  metrics.Sample(allocation.partial, "state", "partial");
  metrics.Sample(allocation.clusters -
                     std::min(allocation.clusters, allocation.allocated + allocation.partial),
                 "state", "unallocated");
  metrics.Gauge("addcow_subclusters",
                "Subclusters of 4 KiB in the image file, in partial clusters.",
                allocation.subclusters);
  metrics.Begin("addcow_unpublished_bits", "gauge", "Bits that wait for a flush.");
  metrics.Sample(allocation.unpublished_clusters, "of", "clusters");
  metrics.Sample(allocation.unpublished_subclusters, "of", "subclusters");
  metrics.Gauge("addcow_unpublished_bytes", "Bytes of the disk that they stand for.",
                allocation.unpublished_bytes);
  metrics.Counter("addcow_flushes_shared_total", "Flushes answered by another one's.",
                  image.flushes_shared);
  metrics.Counter("addcow_flush_errors_total", "Flushes that failed.", image.flush_errors);
  metrics.Begin("addcow_flush_duration_seconds", "histogram",
                "How long flushes took that were done, for whomever.");
  metrics.Histogram(image.flushes, "");
  metrics.Gauge("addcow_backing_connections", "Connections to the backing file's server.",
                image.source.connections);
  metrics.Counter("addcow_backing_reconnects_total", "Connections that were made again.",
                  image.source.reconnects);
  metrics.Counter("addcow_backing_retries_total", "Commands to that server sent again.",
                  image.source.retries);
}

void AddFill(Metrics& metrics, const FillStatus& fill) {
  // One sample for each value that it can have, of which one is 1.
  const auto one_of = [&](const char* label, auto value, const auto& names) {
    for (size_t i = 0; i < names.size(); i++)
      metrics.Sample(static_cast<size_t>(value) == i ? 1 : 0, label, names[i]);
  };
  metrics.Begin("addcow_fill_mode", "gauge", "1 for what the fill is to do.");
  one_of("mode", fill.mode, kFillModeNames);
  metrics.Begin("addcow_fill_state", "gauge", "1 for the state in which the fill is.");
  one_of("state", fill.state, kFillStateNames);
  metrics.Gauge("addcow_fill_position_bytes", "Where the fill is on the disk.", fill.position);
  metrics.Gauge("addcow_fill_left_bytes", "Bytes of clusters that are to be filled.",
                fill.left);
  metrics.Counter("addcow_fill_copied_bytes_total", "Bytes of clusters that were filled.",
                  fill.copied);
  metrics.Gauge("addcow_fill_rate_bytes_per_second", "Its rate, lately.", fill.rate);
  metrics.Gauge("addcow_fill_limit_bytes_per_second", "The most it may have; 0: no limit.",
                fill.limit);
  metrics.Counter("addcow_fill_retries_total", "How often the backing file was tried again.",
                  fill.retries);
  if (const auto left = TimeLeft(fill))
    metrics.Gauge("addcow_fill_left_seconds", "How long it takes to its end, at that rate.",
                  *left);
}

void AddRequestLines(std::string& text, const ServerStatus& status) {
  auto out = std::back_inserter(text);
  fmt::format_to(out, "{:<9}{:>12}{:>11}{:>8}{:>11}{:>11}{:>11}\n", "requests", "count",
                 "bytes", "errors", "mean", "p50", "p99");
  for (size_t kind = 0; kind < kRequestKinds; kind++) {
    const RequestCounts& counts = status.requests[kind];
    if (counts.latencies.count() == 0) continue;
    fmt::format_to(out, "  {:<7}{:>12}{:>11}{:>8}{:>11}{:>11}{:>11}\n", kRequestKindNames[kind],
                   counts.latencies.count(), HumanSize(counts.bytes), counts.errors,
                   HumanLatency(Mean(counts.latencies)), Quantile(counts.latencies, 0.5),
                   Quantile(counts.latencies, 0.99));
  }
}

}  // namespace

std::string HumanTime(double seconds) {
  const auto whole = static_cast<uint64_t>(seconds + 0.5);
  const uint64_t hours = whole / 3600;
  const uint64_t minutes = whole / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

std::string HumanFill(const FillStatus& fill) {
  if (fill.state == FillState::kOff) return "off";
  std::string text = fmt::format("{}, {}", NameOf(fill.mode), NameOf(fill.state));
  // Of one that is done clients may have written parts of clusters since.
  if (fill.state != FillState::kDone || fill.left > 0) {
    text += fmt::format(", {} left", HumanSize(fill.left));
    if (fill.state == FillState::kRunning) text += fmt::format(", {}/s", HumanSize(fill.rate));
    if (const auto left = TimeLeft(fill)) text += ", " + HumanTime(*left) + " to go";
  }
  if (fill.limit > 0) text += fmt::format(", limit {}/s", HumanSize(fill.limit));
  if (!fill.error.empty()) text += ": " + Printable(fill.error);
  return text;
}

std::string HumanStatus(const ServerStatus& status) {
  const ImageCounts& image = status.image;
  const AllocationCounts& allocation = image.allocation;
  std::string text;
  auto out = std::back_inserter(text);
  const auto line = [&](const char* name, const std::string& value) {
    fmt::format_to(out, "{:<11}{}\n", name, value);
  };
  fmt::format_to(out, "{}: {}, {}, up {}\n", Printable(status.add_cow), HumanSize(status.size),
                 status.writable ? "writable" : "read only", HumanTime(status.uptime));
  line("allocated",
       fmt::format("{:.1f}% ({} of {}), {} in part",
                   Percent(allocation.allocated, allocation.clusters), allocation.allocated,
                   Counted(allocation.clusters, "cluster"), allocation.partial));
  line("waiting", fmt::format("{} for a flush", HumanSize(allocation.unpublished_bytes)));
  line("read from", fmt::format("image {}, backing {}, nowhere {}", HumanSize(image.read_image),
                                HumanSize(image.read_backing), HumanSize(image.read_nowhere)));
  const auto amplification = WriteAmplification(status);
  line("written to",
       fmt::format("image {}, add-cow {}{}", HumanSize(image.written_image),
                   HumanSize(image.written_add_cow),
                   amplification
                       ? fmt::format(": {:.3g} bytes for each of a client's", *amplification)
                       : ""));
  const uint64_t flushes = image.flushes.count();
  line("flushes",
       fmt::format(
           "{}, shared {}{}{}", flushes, image.flushes_shared,
           flushes > 0 ? ", mean " + HumanLatency(Mean(image.flushes)) : "",
           image.flush_errors > 0 ? fmt::format(", failed {}", image.flush_errors) : ""));
  if (status.copy_on_read)
    line("fetched", fmt::format("{}, kept {}{}", HumanSize(status.fetch.fetched),
                                HumanSize(status.fetch.kept),
                                status.fetch.failures > 0
                                    ? fmt::format(", failed {} times", status.fetch.failures)
                                    : ""));
  if (image.source.connections + image.source.reconnects + image.source.retries > 0)
    line("backing",
         fmt::format("{}, {} made again, {} sent again",
                     Counted(image.source.connections, "connection"), image.source.reconnects,
                     Counted(image.source.retries, "command")));
  line("fill", HumanFill(status.fill));
  AddRequestLines(text, status);
  return text;
}

std::string PrometheusStatus(const ServerStatus& status) {
  Metrics metrics(status.add_cow);
  metrics.Begin("addcow_info", "gauge", "What serves it.");
  metrics.Sample(1, "version", status.version);
  metrics.Gauge("addcow_uptime_seconds", "Since the server started.", status.uptime);
  metrics.Gauge("addcow_disk_size_bytes", "Size of the disk.", status.size);
  metrics.Gauge("addcow_writable", "0: read only, or writing has ended.",
                status.writable ? 1 : 0);
  AddRequests(metrics, status);
  AddImage(metrics, status.image);
  if (const auto amplification = WriteAmplification(status))
    metrics.Gauge("addcow_write_amplification_ratio",
                  "Bytes written to the files for each that clients wrote.", *amplification);
  metrics.Counter("addcow_fetched_bytes_total", "Bytes read by copy-on-read.",
                  status.fetch.fetched);
  metrics.Counter("addcow_kept_bytes_total", "Bytes that it kept.", status.fetch.kept);
  metrics.Counter("addcow_keep_errors_total", "How often that failed.", status.fetch.failures);
  AddFill(metrics, status.fill);
  return metrics.Text();
}

}  // namespace addcow
