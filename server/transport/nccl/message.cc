// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/message.h"

namespace annulus::transport::nccl {
namespace {

void PutNumber(std::string* out, uint64_t value) {  // 7 bits a byte, the lowest first
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}

  bool Number(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (left_.empty()) return false;
      const auto byte = static_cast<uint8_t>(left_.front());
      left_.remove_prefix(1);
      if (shift == 63 && byte > 1) return false;
      *value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool Text(std::string* text) {
    uint64_t length = 0;
    if (!Number(&length) || length > left_.size()) return false;
    text->assign(left_.substr(0, length));
    left_.remove_prefix(length);
    return true;
  }
  // How many items follow, each at least a byte long: no count makes us reserve more than came.
  bool Count(uint64_t* count) { return Number(count) && *count <= left_.size(); }
  bool at_end() const { return left_.empty(); }

 private:
  std::string_view left_;
};

bool ReadNote(Reader* reader, OperationNote* note) {
  uint64_t direction = 0;
  uint64_t peer = 0;
  uint64_t count = 0;
  if (!reader->Number(&note->id) || !reader->Number(&direction) || direction > 1 ||
      !reader->Number(&peer) || peer > 0xFFFF || !reader->Number(&note->tag) ||
      !reader->Count(&count)) {
    return false;
  }
  note->is_send = direction == 1;
  note->peer = static_cast<int32_t>(peer);
  note->lengths.resize(count);
  for (uint64_t& length : note->lengths) {
    if (!reader->Number(&length) || length == 0) return false;
  }
  return true;
}

bool Known(uint64_t type) {
  return (type >= static_cast<uint64_t>(MessageType::kHello) &&
          type <= static_cast<uint64_t>(MessageType::kEnded)) ||
         (type >= static_cast<uint64_t>(MessageType::kId) &&
          type <= static_cast<uint64_t>(MessageType::kOver));
}

}  // namespace

std::string EncodeMessage(const Message& message) {
  std::string out;
  PutNumber(&out, static_cast<uint64_t>(message.type));
  PutNumber(&out, message.number);
  PutNumber(&out, message.text.size());
  out += message.text;
  PutNumber(&out, message.operations.size());
  for (const OperationNote& note : message.operations) {
    PutNumber(&out, note.id);
    PutNumber(&out, note.is_send ? 1 : 0);
    PutNumber(&out, static_cast<uint64_t>(note.peer));
    PutNumber(&out, note.tag);
    PutNumber(&out, note.lengths.size());
    for (const uint64_t length : note.lengths) PutNumber(&out, length);
  }
  return out;
}

std::optional<Message> DecodeMessage(std::string_view bytes) {
  Reader reader(bytes);
  Message message;
  uint64_t type = 0;
  uint64_t count = 0;
  if (!reader.Number(&type) || !Known(type) || !reader.Number(&message.number) ||
      !reader.Text(&message.text) || !reader.Count(&count)) {
    return std::nullopt;
  }
  message.type = static_cast<MessageType>(type);
  message.operations.resize(count);
  for (OperationNote& note : message.operations) {
    if (!ReadNote(&reader, &note)) return std::nullopt;
  }
  if (!reader.at_end()) return std::nullopt;
  return message;
}

}  // namespace annulus::transport::nccl
