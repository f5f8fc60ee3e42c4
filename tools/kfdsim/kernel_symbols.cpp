#include "tools/kfdsim/kernel_symbols.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>

#include "tools/kfdsim/backing_memory.h"

namespace eclip::kfdsim {
namespace {

constexpr std::size_t max_program_headers = 64;
constexpr std::size_t max_dynamic_entries = 256;
constexpr std::uint32_t max_symbols = 1U << 20;
constexpr std::size_t max_name = 4096;
// How far from its image's start a kernel is looked for: the whole GPU stands still meanwhile, and
// the client's buffer may have gigabytes.
constexpr std::uint64_t max_image_bytes = 1ULL << 28;

/// The code object whose image holds `address`: the nearest ELF header before it, at the start of a
/// page, with nothing unmapped in between.
std::optional<std::uint64_t> image_around(const GpuMemory& memory, std::uint64_t address) {
  const std::uint64_t last = address / page_bytes * page_bytes;
  for (std::uint64_t page = last; last - page < max_image_bytes; page -= page_bytes) {
    const auto magic = memory.read_as<std::uint32_t>(page);
    if (!magic) return std::nullopt;
    if (std::memcmp(&*magic, ELFMAG, SELFMAG) == 0) return page;
    if (page == 0) return std::nullopt;
  }
  return std::nullopt;
}

struct DynamicTables {
  std::uint64_t symbols = 0;
  std::uint64_t strings = 0;
  std::uint64_t hash = 0;
};

std::optional<Elf64_Phdr> dynamic_segment(const GpuMemory& memory, std::uint64_t image) {
  const auto header = memory.read_as<Elf64_Ehdr>(image);
  if (!header || header->e_machine != EM_AMDGPU || header->e_phentsize != sizeof(Elf64_Phdr) ||
      header->e_phnum > max_program_headers) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < header->e_phnum; ++i) {
    const auto segment =
        memory.read_as<Elf64_Phdr>(image + header->e_phoff + i * sizeof(Elf64_Phdr));
    if (!segment) return std::nullopt;
    if (segment->p_type == PT_DYNAMIC) return segment;
  }
  return std::nullopt;
}

std::optional<DynamicTables> dynamic_tables(const GpuMemory& memory, std::uint64_t image) {
  const auto segment = dynamic_segment(memory, image);
  if (!segment) return std::nullopt;
  DynamicTables tables;
  for (std::size_t i = 0; i < max_dynamic_entries; ++i) {
    const auto entry = memory.read_as<Elf64_Dyn>(image + segment->p_vaddr + i * sizeof(Elf64_Dyn));
    if (!entry) return std::nullopt;
    if (entry->d_tag == DT_NULL) break;
    if (entry->d_tag == DT_SYMTAB) tables.symbols = image + entry->d_un.d_ptr;
    if (entry->d_tag == DT_STRTAB) tables.strings = image + entry->d_un.d_ptr;
    if (entry->d_tag == DT_HASH) tables.hash = image + entry->d_un.d_ptr;
  }
  if (tables.symbols == 0 || tables.strings == 0 || tables.hash == 0) return std::nullopt;
  return tables;
}

std::optional<std::string> read_string(const GpuMemory& memory, std::uint64_t address) {
  std::string text;
  while (text.size() < max_name) {
    const auto character = memory.read_as<char>(address + text.size());
    if (!character) return std::nullopt;
    if (*character == '\0') return text;
    text.push_back(*character);
  }
  return std::nullopt;
}

}  // namespace

std::optional<KernelSymbol> find_kernel_symbol(const GpuMemory& memory,
                                               std::uint64_t kernel_object) {
  const auto image = image_around(memory, kernel_object);
  if (!image) return std::nullopt;
  const auto tables = dynamic_tables(memory, *image);
  if (!tables) return std::nullopt;
  // A DT_HASH table begins with its number of buckets and its number of symbols.
  const auto count = memory.read_as<std::uint32_t>(tables->hash + sizeof(std::uint32_t));
  if (!count || *count > max_symbols) return std::nullopt;
  // Many at a time: in private memory each look is a system call.
  std::array<Elf64_Sym, 1024> some{};
  for (std::uint32_t i = 0; i < *count; ++i) {
    const std::size_t at = i % some.size();
    if (at == 0) {
      const auto next = std::span(some).first(std::min<std::size_t>(some.size(), *count - i));
      const std::uint64_t from = tables->symbols + i * sizeof(Elf64_Sym);
      if (!memory.read(from, std::as_writable_bytes(next))) return std::nullopt;
    }
    const Elf64_Sym& symbol = some.at(at);
    if (symbol.st_shndx == SHN_UNDEF || *image + symbol.st_value != kernel_object) continue;
    const std::uint64_t address = tables->strings + symbol.st_name;
    auto name = read_string(memory, address);
    if (!name) return std::nullopt;
    constexpr std::string_view descriptor_suffix = ".kd";
    if (name->ends_with(descriptor_suffix)) name->resize(name->size() - descriptor_suffix.size());
    return KernelSymbol{std::move(*name), address};
  }
  return std::nullopt;
}

}  // namespace eclip::kfdsim
