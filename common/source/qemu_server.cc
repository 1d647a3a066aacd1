// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See qemu_server.h.

#include "common/source/qemu_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <libnbd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/unique_fd.h"
#include "common/io/file_system.h"
#include "common/source/nbd_pool.h"
#include "common/source/program.h"
#include "common/source/qemu_layer.h"
#include "common/source/qemu_words.h"

namespace addcow {

namespace {

constexpr std::array<std::string_view, 11> kFormats = {
    "qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels", "dmg", "qcow", "bochs", "cloop"};

// A shell's, which becomes qemu-nbd: $0 is where its errors go, even when it runs longer
// than the terminal; $1 a pipe of ours, by the number that it has inherited; $2 our process;
// $3 the file's directory: a relative name of a qcow2's data file starts where QEMU runs;
// $4 the signal that ends it: one that writes is to close its image.
//
// qemu-nbd ends with its last client, but not before it has had one, nor where the last to
// go had only begun to connect, nor while it is stopped. So a child waits at the pipe for as
// long as it runs, and kills it where it is told so or we end. It must not keep the socket
// open (3), or nobody would see qemu-nbd fail. The pipe is its own by then: one of ours would
// be gone with us, before anybody could wait at it. A shell need not know descriptors above
// 9, so it opens what it has once more; where there is no /proc it does without.
//
// While it starts qemu-nbd forgets what it was told to end by a signal that it catches, so it
// is told again. The number is nobody else's: it is that of the session, in which the child is.
constexpr const char* kScript = R"(cd "$3"
exec </dev/null >/dev/null
[ -w "$0" ] && exec 2>>"$0"
end() {
  for again in 1 2 3 4 5; do
    kill -"$1" $$ && kill -CONT $$ && [ "$1" != 9 ] && sleep 1 || break
  done
}
( { (trap "" HUP; read -r word <&4; [ "$word" = leave ] || end "$4") 3<&- &
  } 4<"/proc/self/fd/$1" ) 2>/dev/null || [ "$PPID" = "$2" ] || exit 1
shift 4
exec "$@")";

// What a terminal or a killer of jobs sends to a whole process group is not for qemu-nbd, nor
// for who waits at the pipe: they end with us, and we may not end at once. So they have a
// session of their own from the beginning; what is killed before that has started nothing.
constexpr const char* kNewSession = "setsid";

// A value of QEMU's options ends at a comma; two of them are one.
std::string OptionValue(const std::string& text) {
  std::string value;
  for (const char c : text) value += c == ',' ? std::string(",,") : std::string(1, c);
  return value;
}

class QemuServer final : public NbdServer {
 public:
  QemuServer(FileSystem& file_system, QemuImage image, std::string layer_name,
             std::vector<QemuHeldFile> held)
      : file_system_(file_system),
        image_(std::move(image)),
        layer_name_(std::move(layer_name)),
        held_(std::move(held)) {}

  std::string name() const override { return image_.path; }

  int Connect(nbd_handle* handle, size_t connection) override {
    return connection == 0 ? StartIt(handle) : ConnectAgain(handle);
  }

  void Connected(nbd_handle* handle) override {
    ::sockaddr_un address = {};
    ::socklen_t length = sizeof address;
    if (::getpeername(nbd_aio_get_fd(handle), reinterpret_cast<::sockaddr*>(&address),
                      &length) == -1)
      return;
    MutexLock lock(mutex_);
    socket_ = address.sun_path;
  }

  // libnbd waits for the end of a child, whose number may be another's then. With one that
  // only reads nothing is lost.
  void Closing(nbd_handle* handle, size_t connection) override {
    if (connection != 0) return;
    const bool is_child = parent_ == ::getpid();
    if (is_child) (void)nbd_kill_subprocess(handle, EndSignal());
    Tell(is_child ? "leave\n" : "kill\n");
  }

  std::string Changed(bool connected) const override {
    for (const QemuHeldFile& held : held_) {
      const auto there = file_system_.Identify(held.path);
      if (there && there->SameFile(held.info)) continue;
      // What QEMU cannot open either it says itself, and it may be back soon.
      if (!there && !connected) continue;
      return (held.path == image_.path ? "" : fmt::format("stands on {}, which ", held.path)) +
             (there ? "was replaced by another file" : "was moved away");
    }
    return "";
  }

  std::string Explanation() const override { return errors_.Text(); }
  std::optional<Error> Refusal() const override {
    return InUseByQemuWords(errors_.Text(), image_.path);
  }

 private:
  int EndSignal() const { return image_.writable ? SIGTERM : SIGKILL; }

  std::string Options() const {
    std::string options =
        fmt::format("driver={},{},file.driver={},file.filename={}", image_.format,
                    image_.writable ? "read-only=off,discard=unmap" : "read-only=on",
                    image_.is_block_device ? "host_device" : "file", OptionValue(image_.path));
    // QEMU has force-share for readers only.
    if (!image_.lock) options += image_.writable ? ",file.locking=off" : ",force-share=on";
    return options;
  }

  int StartIt(nbd_handle* handle) {
    parent_ = ::getpid();
    errors_.Clear();
    const std::string options = image_.alone ? layer_name_ : Options();
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) == 0) {
      watched_ = UniqueFd(ends[0]);
      word_ = UniqueFd(ends[1]);
      // The other end must be ours alone; this one may be anybody's.
      (void)::fcntl(watched_.get(), F_SETFD, 0);
    }
    const std::string errors = errors_.path();
    const std::string watched = fmt::format("{}", watched_.get());
    // Relative names of data files start there, also those of what it stands on.
    const std::string directory = image_.RunsIn();
    const std::string parent = fmt::format("{}", parent_);
    const std::string signal = fmt::format("{}", EndSignal());
    const std::string shared = fmt::format("--shared={}", NbdPool::kMostConnections);
    std::vector<const char*> words;
    if (HasProgram(kNewSession)) words.push_back(kNewSession);
    words.insert(words.end(), {
                                  "/bin/sh",
                                  "-c",
                                  kScript,
                                  errors.c_str(),
                                  watched.c_str(),
                                  parent.c_str(),
                                  directory.c_str(),
                                  signal.c_str(),
                                  "qemu-nbd",
                                  shared.c_str(),
                                  options.c_str(),
                              });
    if (!image_.alone) words.push_back("--image-opts");
    if (!image_.writable) words.push_back("--read-only");
    words.push_back(nullptr);
    // libnbd copies what it needs, and changes nothing.
    const int begun =
        nbd_aio_connect_systemd_socket_activation(handle, const_cast<char**>(words.data()));
    // Kept, so that nobody gets SIGPIPE for a word to nobody.
    (void)::fcntl(watched_.get(), F_SETFD, FD_CLOEXEC);
    return begun;
  }

  // Whoever waits at the pipe is gone after it: another process may have it as well, and
  // live much longer.
  void Tell(std::string_view word) {
    if (word_.valid()) (void)!::write(word_.get(), word.data(), word.size());
    word_ = UniqueFd();
    watched_ = UniqueFd();
  }

  int ConnectAgain(nbd_handle* handle) {
    std::string socket;
    {
      MutexLock lock(mutex_);
      socket = socket_;
    }
    return nbd_aio_connect_unix(handle, socket.c_str());
  }

  FileSystem& file_system_;
  const QemuImage image_;
  const std::string layer_name_;  // of one that is served alone
  const std::vector<QemuHeldFile> held_;
  ErrorOutput errors_;
  // The first connection's.
  ::pid_t parent_ = -1;
  UniqueFd watched_;
  UniqueFd word_;

  Mutex mutex_;
  std::string socket_ ADDCOW_GUARDED_BY(mutex_);  // the one that runs
};

}  // namespace

std::span<const std::string_view> QemuFormats() { return kFormats; }

bool IsQemuFormat(std::string_view format) {
  return std::ranges::find(kFormats, format) != kFormats.end();
}

Status CheckQemuNbd(const QemuImage& image) {
  if (HasProgram("qemu-nbd")) return {};
  return Fail(Error::Because(
      ENOENT, image.path,
      fmt::format("format '{}' is read by qemu-nbd, which is not installed (its package: "
                  "qemu-utils on Debian and Ubuntu, qemu-img on Fedora)",
                  image.format)));
}

Result<std::unique_ptr<NbdServer>> ServerOfQemuImage(FileSystem& file_system, QemuImage image,
                                                     std::vector<QemuHeldFile> held) {
  ADDCOW_TRY(CheckQemuNbd(image));
  std::string layer_name;
  if (image.alone) {
    ADDCOW_TRY_ASSIGN(layer_name, NameOfQemuLayer(image));
  }
  return std::make_unique<QemuServer>(file_system, std::move(image), std::move(layer_name),
                                      std::move(held));
}

}  // namespace addcow
