#include "ipc/messages.h"

namespace eclip {

Result<void> check_header(const MessageHeader& header) {
  if (header.magic != MessageHeader::expected_magic)
    return fail(Errc::malformed, "not an ECLIP control message (wrong magic)");
  if (header.major != MessageHeader::protocol_major)
    return fail(Errc::version_mismatch, "the peer speaks control protocol " +
                                            std::to_string(header.major) + "." +
                                            std::to_string(header.minor) + ", this side " +
                                            std::to_string(MessageHeader::protocol_major) + "." +
                                            std::to_string(MessageHeader::protocol_minor) +
                                            ": install the same version of eclipd and libeclip");
  return {};
}

Error error_of(const Message& message) {
  const auto reply = payload_of<ErrorReply>(message);
  return Error{std::error_code(reply.code, eclip_category()), reply.text.str()};
}

Message make_error(std::uint32_t sequence, const Error& error) {
  ErrorReply reply{};
  // Codes of the system mean nothing to the peer's caller; the text carries them.
  reply.code = error.code.category() == eclip_category() ? error.code.value()
                                                         : static_cast<int>(Errc::device_failed);
  reply.text.assign(error.message());
  return make_message(MessageType::error, sequence, reply);
}

}  // namespace eclip
