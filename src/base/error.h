// Error: a numbered code, what was being done, and the class that tells a caller what it may do next.
// Codes are one list; numbers are frozen and never reused (they cross the wire and appear in logs).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace quarry {

// What the receiver of an error may do about it.
enum class ErrorClass : uint8_t {
  retry,            // nothing happened; the same request may succeed later
  caller,           // the request is wrong and will stay wrong
  environment,      // machine, disk, network or configuration: somebody has to look
  corrupt,          // bytes are not what was written
  unknown_outcome,  // it may or may not have happened; the request carries an id and is safe to repeat
};

// clang-format off
#define QUARRY_ERROR_CODES(X) \
  X(invalid_argument,     1, caller,          "an argument has no meaning here") \
  X(not_found,            2, caller,          "the named thing does not exist") \
  X(already_exists,       3, caller,          "the named thing exists already") \
  X(precondition_failed,  4, caller,          "a stated condition does not hold") \
  X(permission_denied,    5, caller,          "the identity may not do this") \
  X(unauthenticated,      6, caller,          "the request does not prove who asks") \
  X(out_of_range,         7, caller,          "a position or range lies outside the data") \
  X(not_empty,            8, caller,          "the thing still holds others") \
  X(unsupported,          9, caller,          "this operation is not offered here") \
  X(too_large,           10, caller,          "a size exceeds its limit") \
  X(quota_exceeded,      11, caller,          "the quota does not allow it") \
  X(malformed,           12, caller,          "input could not be parsed") \
  X(checksum_mismatch,   13, caller,          "the sent bytes do not match the sent checksum") \
  X(incompatible,        14, caller,          "a format or version that this program does not serve") \
  X(wrong_owner,         15, caller,          "it belongs to another store or cluster") \
  X(busy,                16, retry,           "another operation is in the way") \
  X(conflict,            17, retry,           "a concurrent transaction won") \
  X(overloaded,          18, retry,           "a bounded queue is full") \
  X(timed_out,           19, retry,           "the deadline passed before anything happened") \
  X(cancelled,           20, retry,           "the caller or a shutdown cancelled it") \
  X(unavailable,         21, retry,           "the needed service or enough drives cannot be reached") \
  X(io_error,            22, environment,     "a device or the operating system failed") \
  X(no_space,            23, environment,     "the device or store is full") \
  X(device_gone,         24, environment,     "the device has vanished or was disabled") \
  X(connection_closed,   25, environment,     "the peer closed or reset the connection") \
  X(misconfigured,       26, environment,     "the configuration cannot work") \
  X(read_only,           27, environment,     "it can be read but not changed now") \
  X(corrupt,             28, corrupt,         "stored bytes fail their checksum or structure") \
  X(data_lost,           29, corrupt,         "fewer pieces survive than are needed") \
  X(unknown_outcome,     30, unknown_outcome, "it may have happened") \
  X(internal,            31, environment,     "an unexpected condition inside the program")
// clang-format on

enum class Code : uint16_t {
#define X(name, number, cls, text) name = number,
  QUARRY_ERROR_CODES(X)
#undef X
};

std::string_view code_name(Code code);         // "not_found"
std::string_view code_description(Code code);  // one sentence
ErrorClass code_class(Code code);

// Why, where one code has causes that a caller treats differently: by this, never by the words of the context. One list for all modules;
// numbers are frozen like those of the codes. Most errors have none.
// clang-format off
#define QUARRY_ERROR_REASONS(X) \
  X(none,      0, "nothing more is known") \
  X(changed,   1, "somebody else changed the stored bytes: their size or time says so, too") \
  X(replaced,  2, "something of somebody else lies where the bytes were stored") \
  X(vanished,  3, "the stored bytes were removed, and not by this program") \
  X(rot,       4, "the stored bytes fail their checksum, and nothing says that somebody changed them") \
  X(taken,     5, "another node has opened the drive since this one did")
// clang-format on

enum class Reason : uint8_t {
#define X(name, number, text) name = number,
  QUARRY_ERROR_REASONS(X)
#undef X
};

std::string_view reason_name(Reason reason);         // "changed"
std::string_view reason_description(Reason reason);  // one sentence

// Value type; immutable once built but for added context. Any thread.
class [[nodiscard]] Error {
 public:
  Error(Code code, std::string context) : code_(code), context_(std::move(context)) {}
  explicit Error(Code code) : code_(code) {}
  Code code() const { return code_; }
  Reason reason() const { return reason_; }
  ErrorClass error_class() const { return code_class(code_); }
  const std::string& context() const { return context_; }
  // Prepends "what: " to the context; for callers who know more ("which file?").
  Error with(std::string_view what) &&;
  Error because(Reason reason) &&;
  std::string to_string() const;  // "not_found: bucket 'x'"
 private:
  Code code_;
  Reason reason_ = Reason::none;
  std::string context_;
};

// errno of a failed system call as an Error: ENOSPC -> no_space, ENODEV/ENXIO -> device_gone, EROFS -> read_only, else io_error.
Error errno_error(int error_number, std::string_view what);

}  // namespace quarry
