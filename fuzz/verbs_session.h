// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A session of the verbs fuzzer: the files, the verb that is running, and what must
// hold whatever verb it is. The properties stand in verbs_fuzzer.cc.

#ifndef ADDCOW_FUZZ_VERBS_SESSION_H
#define ADDCOW_FUZZ_VERBS_SESSION_H

#include <memory>
#include <optional>
#include <string>

#include "common/format/header.h"
#include "common/ops/check.h"
#include "common/ops/map.h"
#include "common/ops/summary.h"
#include "fuzz/disk_rules.h"
#include "fuzz/scene.h"

namespace addcow::fuzz {

// Disks that a verb is tried on which visits every cluster, or writes a bit
// for each; or copies one up for each, or, where the image file has no holes, reads
// every byte.
inline constexpr uint64_t kMaxWalkedClusters = 1 << 20;
inline constexpr uint64_t kMaxCopiedClusters = 1 << 14;
inline constexpr uint64_t kMaxWritten = 4 * kMiB;
inline constexpr uint64_t kMaxCounted = kGiB;

class VerbsSession {
 public:
  explicit VerbsSession(Scene& scene) : scene_(scene), files_(scene.files) {}

  void Run(Input& input);

 private:
  void Verb(Input& input);

  // verbs_fuzzer.cc
  void Info();
  void Map();
  void Summarize(const KindBytes& kinds);
  void MustComeFromTheRightFile(const MapEntry& entry, uint64_t cluster) const;
  void Check();
  void MustCountRight(const CheckReport& report);
  static void MustRefuse(const Result<CheckReport>& report, const char* verb);
  void Mend(Repair repair);
  void Flatten();

  // verbs_anew.cc
  // The add-cow file gets its only name, so that it can be written anew; unless `keep`.
  // Whether it has two now.
  bool HasTwoNames(bool keep);
  void Create(Input& input);
  void Rebase(Input& input);
  void Convert(Input& input);

  // verbs_data.cc
  bool IsCopied() const;
  void Commit(Input& input);
  void RebaseData(Input& input);
  void Compare();
  void Measure(Input& input);
  void List();
  void Import(Input& input);
  void Export(Input& input);

  // verbs_resize.cc
  void Resize(Input& input);
  void MustHaveBeenResized(uint64_t size) const;

  bool Has(unsigned flag) const { return (scene_.flags & flag) != 0; }
  bool IsWalked() const { return !disk_ || disk_->clusters() <= kMaxWalkedClusters; }
  // check and convert do without a backing file.
  void ReadWithoutBacking(DiskByTheRules::Backing wanted = DiskByTheRules::Backing::kOptional) {
    disk_ = DiskByTheRules::Read(files_, kAddCow, wanted);
  }
  void MustBeUnchanged(const char* verb);
  // What the disk reads now, in the places that matter, is what it was.
  void MustReadTheSame(const char* verb, DiskByTheRules::Backing wanted);
  void MustHaveTheSameInImage(const DiskByTheRules& now, bool may_copy) const;
  // These names apart, everything else is as it was.
  void MustChangeOnly(const std::string& add_cow, const std::string& image);

  Scene& scene_;
  FakeFileSystem& files_;
  std::optional<DiskByTheRules> disk_;  // as it was before the verb
  std::unique_ptr<FakeFileSystem> before_;
  bool created_ = false;
};

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_VERBS_SESSION_H
