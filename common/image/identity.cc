// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See identity.h.

#include "common/image/identity.h"

#include <fmt/format.h>

#include "common/source/sample_hash.h"

namespace addcow {

namespace {

std::string WithRemedy(const IdentityWords& words, const std::string& what) {
  return fmt::format("{} (to note what it is now: {})", what, words.accept);
}

Note NoteOf(const IdentityWords& words, const std::string& what) {
  return Error::Because(0, words.backing, what).Message();
}

tl::unexpected<Error> Refuse(const IdentityWords& words, const std::string& what) {
  return Fail(Error::Because(EINVAL, words.backing,
                             fmt::format("{} (to do without this check once: {}; to accept it "
                                         "as it is: {})",
                                         what, words.ignore, words.accept)));
}

// Where both are known and not the same.
std::string OtherTime(const std::optional<FileTime>& now, const BackingIdentity& noted,
                      const IdentityWords& words) {
  if (!noted.modified || !now || *noted.modified == *now) return "";
  return fmt::format("the backing file was modified at {}, but at {} when {} noted it",
                     TimeText(*now), TimeText(*noted.modified), words.add_cow);
}

Result<Note> CompareSample(Base& base, const BackingIdentity& noted, const std::string& time,
                           const IdentityWords& words) {
  const auto hash = HashSample(*base.source, noted.sample->edge);
  if (!hash && time.empty())
    return NoteOf(words, fmt::format("a sample of the backing file cannot be read, so it was "
                                     "not compared with what {} noted: {}",
                                     words.add_cow, hash.error().Message()));
  if (!hash)
    return Refuse(words, fmt::format("{}, and whether it is the same cannot be told: {}", time,
                                     hash.error().Message()));
  if (*hash != noted.sample->hash)
    return Refuse(
        words, (time.empty() ? fmt::format("the backing file does not hold what it held when "
                                           "{} noted it",
                                           words.add_cow)
                             : time + ", and does not hold what it held then") +
                   ": it is another one, or was written to");
  if (time.empty()) return Note();
  return NoteOf(words, WithRemedy(words, time + "; a sample of it is the same"));
}

}  // namespace

Note NoteOtherBase(const std::string& path, Base& base, const BackingIdentity& noted) {
  const uint64_t size = base.source->size();
  if (noted.size && size != *noted.size)
    return Error::Because(
               0, path,
               fmt::format("has {} bytes, and the backing file so far had {}{}", size,
                           *noted.size,
                           size < *noted.size ? ": what is missing reads as zeroes" : ""))
        .Message();
  if (!noted.sample) return Note();
  // That it cannot be read is said of the sample that is to be noted.
  const auto hash = HashSample(*base.source, noted.sample->edge);
  if (!hash || *hash == noted.sample->hash) return Note();
  return Error::Because(0, path,
                        "does not hold what the backing file held that was noted so far: what "
                        "is not allocated reads as it is here")
      .Message();
}

BackingIdentity IdentityToNote(Base& base) {
  BackingIdentity identity{.size = base.source->size(), .modified = base.modified};
  const auto hash = HashSample(*base.source, base.sample_edge);
  if (hash)
    identity.sample = {.edge = base.sample_edge, .hash = *hash};
  else
    base.notes.push_back(
        hash.error()
            .WithNote("so no sample of the backing file is noted, and a change of it will "
                      "not be noticed unless its size or time shows it")
            .Message());
  return identity;
}

Result<Note> CompareIdentity(Base& base, const BackingIdentity& noted,
                             const IdentityWords& words) {
  const uint64_t size = base.source->size();
  if (noted.size && size != *noted.size) {
    const std::string what =
        fmt::format("the backing file has {} bytes, but had {} when {} noted it", size,
                    *noted.size, words.add_cow);
    if (size < *noted.size)
      return Refuse(words, what + ": what is missing would read as zeroes");
    if (noted.sample) return Refuse(words, what + ": it is another one, or was written to");
    return NoteOf(words, WithRemedy(words, what));
  }
  const std::string time = OtherTime(base.modified, noted, words);
  if (noted.sample) return CompareSample(base, noted, time, words);
  return time.empty() ? Note() : NoteOf(words, WithRemedy(words, time));
}

}  // namespace addcow
