// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether a base is the one that a header was given (docs/backing.md, "What is noted of
// it"): another one of the same size would be served without a word, and what was written
// on top of the first would lie among the second's bytes.

#ifndef ADDCOW_COMMON_IMAGE_IDENTITY_H
#define ADDCOW_COMMON_IMAGE_IDENTITY_H

#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/format/backing_identity.h"
#include "common/image/base.h"
#include "common/image/raw_file.h"

namespace addcow {

// What a header is to note of the base. Where its sample cannot be read that is left out,
// with a line in the base's notes.
BackingIdentity IdentityToNote(Base& base);

// Whose record it is, and what the user can do, in words.
struct IdentityWords {
  std::string backing;  // the file
  std::string add_cow;
  std::string accept;  // the command that notes what it is now
  std::string ignore;  // the option that does without, this time
};

// What has become of the base since it was noted. Refuses (EINVAL) one of another size, or
// whose sample is another one; where no sample was noted, only one that is shorter. What
// else is not as it was is a note. The sample is read only where all else allows it.
//
// A sample that cannot be read refuses nobody whose size and time are right: the base may
// be on a disk that fails, and needed all the more.
Result<Note> CompareIdentity(Base& base, const BackingIdentity& noted,
                             const IdentityWords& words);

// Of one, at `path`, that was named in place of the base that was noted, and so is
// accepted: that it is not a copy of that, where it is not.
Note NoteOtherBase(const std::string& path, Base& base, const BackingIdentity& noted);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_IDENTITY_H
