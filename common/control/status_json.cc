// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See status_json.h. What is written and what is read name a field once: both walk through
// the status with the same function, VisitStatus.

#include "common/control/status_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace addcow {

namespace {

template <size_t N>
size_t IndexOf(const std::array<const char*, N>& names, std::string_view name) {
  for (size_t i = 0; i < N; i++)
    if (name == names[i]) return i;
  return N;
}

class StatusWriter {
 public:
  explicit StatusWriter(ControlJson& json) : json_(json) {}

  template <typename T>
  void Value(const char* name, const T& value) {
    json_[name] = value;
  }
  template <typename Enum, size_t N>
  void Name(const char* name, Enum value, const std::array<const char*, N>& names) {
    json_[name] = names[static_cast<size_t>(value)];
  }
  void Histogram(const char* name, const Latencies& latencies) {
    json_[name] = latencies.buckets;
  }
  template <typename Visit>
  void Part(const char* name, Visit visit) {
    ControlJson part = ControlJson::object();
    visit(StatusWriter(part));
    json_[name] = std::move(part);
  }

 private:
  ControlJson& json_;
};

class StatusReader {
 public:
  explicit StatusReader(const ControlJson& json) : json_(json) {}

  void Value(const char* name, uint64_t& value) {
    if (const auto* found = Find(name); found != nullptr && found->is_number_unsigned())
      value = found->get<uint64_t>();
  }
  void Value(const char* name, double& value) {
    if (const auto* found = Find(name); found != nullptr && found->is_number())
      value = found->get<double>();
  }
  void Value(const char* name, bool& value) {
    if (const auto* found = Find(name); found != nullptr && found->is_boolean())
      value = found->get<bool>();
  }
  void Value(const char* name, std::string& value) {
    if (const auto* found = Find(name); found != nullptr && found->is_string())
      value = found->get<std::string>();
  }
  template <typename Enum, size_t N>
  void Name(const char* name, Enum& value, const std::array<const char*, N>& names) {
    std::string text;
    Value(name, text);
    if (const size_t index = IndexOf(names, text); index < N) value = static_cast<Enum>(index);
  }
  void Histogram(const char* name, Latencies& latencies) {
    const auto* found = Find(name);
    if (found == nullptr || !found->is_array() || found->size() != kLatencyBuckets) return;
    for (size_t i = 0; i < kLatencyBuckets; i++)
      if ((*found)[i].is_number_unsigned()) latencies.buckets[i] = (*found)[i].get<uint64_t>();
  }
  template <typename Visit>
  void Part(const char* name, Visit visit) {
    if (const auto* found = Find(name); found != nullptr && found->is_object())
      visit(StatusReader(*found));
  }

 private:
  const ControlJson* Find(const char* name) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(name);
    return found != json_.end() ? &*found : nullptr;
  }

  const ControlJson& json_;
};

// `latencies` with their sum in nanoseconds: a double would lose some after a hundred days.
template <typename Visitor, typename Times>
void VisitTimes(Visitor& visitor, Times& latencies) {
  visitor.Value("nanoseconds", latencies.nanoseconds);
  visitor.Histogram("histogram", latencies);
}

template <typename Visitor, typename Fill>
void VisitFill(Visitor& visitor, Fill& fill) {
  visitor.Name("mode", fill.mode, kFillModeNames);
  visitor.Name("state", fill.state, kFillStateNames);
  visitor.Value("position", fill.position);
  visitor.Value("left", fill.left);
  visitor.Value("copied", fill.copied);
  visitor.Value("rate", fill.rate);
  visitor.Value("limit", fill.limit);
  visitor.Value("retries", fill.retries);
  visitor.Value("error", fill.error);
}

template <typename Visitor, typename Counts>
void VisitImage(Visitor& visitor, Counts& image) {
  visitor.Part("clusters", [&](auto part) {
    part.Value("size", image.allocation.cluster_size);
    part.Value("count", image.allocation.clusters);
    part.Value("allocated", image.allocation.allocated);
    part.Value("partial", image.allocation.partial);
    part.Value("subclusters", image.allocation.subclusters);
  });
  visitor.Part("unpublished", [&](auto part) {
    part.Value("clusters", image.allocation.unpublished_clusters);
    part.Value("subclusters", image.allocation.unpublished_subclusters);
    part.Value("bytes", image.allocation.unpublished_bytes);
  });
  visitor.Part("read", [&](auto part) {
    part.Value("image", image.read_image);
    part.Value("backing", image.read_backing);
    part.Value("nowhere", image.read_nowhere);
  });
  visitor.Part("written", [&](auto part) {
    part.Value("image", image.written_image);
    part.Value("add-cow", image.written_add_cow);
    part.Value("zeroed", image.zeroed_image);
    part.Value("shared", image.cloned_image);
  });
  visitor.Part("flushes", [&](auto part) {
    part.Value("shared", image.flushes_shared);
    part.Value("errors", image.flush_errors);
    VisitTimes(part, image.flushes);
  });
  visitor.Part("backing", [&](auto part) {
    part.Value("connections", image.source.connections);
    part.Value("reconnects", image.source.reconnects);
    part.Value("retries", image.source.retries);
  });
}

template <typename Visitor, typename Server>
void VisitStatus(Visitor visitor, Server& status) {
  visitor.Value("version", status.version);
  visitor.Value("add-cow", status.add_cow);
  visitor.Value("uptime", status.uptime);
  visitor.Value("size", status.size);
  visitor.Value("writable", status.writable);
  visitor.Part("requests", [&](auto all) {
    for (size_t kind = 0; kind < kRequestKinds; kind++) {
      auto& counts = status.requests[kind];
      all.Part(kRequestKindNames[kind], [&](auto part) {
        part.Value("bytes", counts.bytes);
        part.Value("errors", counts.errors);
        VisitTimes(part, counts.latencies);
      });
    }
  });
  VisitImage(visitor, status.image);
  visitor.Part("copy-on-read", [&](auto part) {
    part.Value("on", status.copy_on_read);
    part.Value("fetched", status.fetch.fetched);
    part.Value("kept", status.fetch.kept);
    part.Value("failures", status.fetch.failures);
  });
  visitor.Part("fill", [&](auto part) { VisitFill(part, status.fill); });
}

ControlJson OrNull(const std::optional<double>& value) {
  return value ? ControlJson(*value) : ControlJson();
}

}  // namespace

std::optional<FillMode> FillModeOf(std::string_view name) {
  const size_t index = IndexOf(kFillModeNames, name);
  if (index == 0 || index == kFillModeNames.size()) return std::nullopt;
  return static_cast<FillMode>(index);
}

// What follows from others is for who reads JSON, and not read back.
ControlJson ToJson(const ServerStatus& status) {
  ControlJson json = ControlJson::object();
  VisitStatus(StatusWriter(json), status);
  for (size_t kind = 0; kind < kRequestKinds; kind++)
    json["requests"][kRequestKindNames[kind]]["count"] =
        status.requests[kind].latencies.count();
  json["flushes"]["count"] = status.image.flushes.count();
  json["fill"]["seconds-left"] = OrNull(TimeLeft(status.fill));
  json["write-amplification"] = OrNull(WriteAmplification(status));
  return json;
}

ServerStatus StatusFromJson(const ControlJson& json) {
  ServerStatus status;
  VisitStatus(StatusReader(json), status);
  return status;
}

}  // namespace addcow
