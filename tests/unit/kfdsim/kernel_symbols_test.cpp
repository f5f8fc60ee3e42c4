// Kernels' names in a code object's image, honest and hostile ones.
#include "tools/kfdsim/kernel_symbols.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "tests/unit/kfdsim/gpu_memory_fixture.h"

namespace eclip::kfdsim {
namespace {

constexpr std::uint64_t image = 0x10000000;
constexpr std::uint64_t image_bytes = 0x8000;
constexpr std::uint64_t headers_at = sizeof(Elf64_Ehdr);
constexpr std::uint64_t dynamic_at = 0x200;
constexpr std::uint64_t hash_at = 0x300;
constexpr std::uint64_t symbols_at = 0x400;
constexpr std::uint64_t strings_at = 0x600;
constexpr std::uint64_t kernel_at = 0x3040;
constexpr std::uint64_t other_at = 0x3080;

class KernelSymbolsTest : public GpuMemoryTest {
 protected:
  void SetUp() override {
    map(memory, image, image_bytes);
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_machine = EM_AMDGPU;
    header.e_phoff = headers_at;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 2;
    put(0, header);
    Elf64_Phdr load{};
    load.p_type = PT_LOAD;
    put(headers_at, load);
    Elf64_Phdr dynamic{};
    dynamic.p_type = PT_DYNAMIC;
    dynamic.p_vaddr = dynamic_at;
    put(headers_at + sizeof load, dynamic);
    put(dynamic_at, std::array{entry(DT_SYMTAB, symbols_at), entry(DT_STRTAB, strings_at),
                               entry(DT_HASH, hash_at), entry(DT_NULL, 0)});
    put(hash_at, std::array<std::uint32_t, 2>{1, 4});
    put(symbols_at,
        std::array{Elf64_Sym{}, symbol(1, 0), symbol(10, kernel_at), symbol(25, other_at)});
    put_text(strings_at, std::string_view("\0imported\0_Z4axpyPf.kd\0\0\0plain\0", 31));
    // A symbol that is not defined here has no address.
    auto imported = symbol(1, kernel_at);
    imported.st_shndx = SHN_UNDEF;
    put(symbols_at + sizeof imported, imported);
  }

  static Elf64_Dyn entry(std::int64_t tag, std::uint64_t value) {
    Elf64_Dyn result{};
    result.d_tag = tag;
    result.d_un.d_ptr = value;
    return result;
  }
  static Elf64_Sym symbol(std::uint32_t name, std::uint64_t value) {
    Elf64_Sym result{};
    result.st_name = name;
    result.st_shndx = 5;
    result.st_value = value;
    return result;
  }
  template <class T>
  void put(std::uint64_t offset, const T& value) {
    ASSERT_TRUE(memory.write_as(image + offset, value));
  }
  void put_text(std::uint64_t offset, std::string_view text) {
    ASSERT_TRUE(memory.write(image + offset, std::as_bytes(std::span(text))));
  }
  std::optional<std::string> name_of(std::uint64_t offset) {
    auto found = find_kernel_symbol(memory, image + offset);
    if (!found) return std::nullopt;
    return found->name;
  }

  GpuMemory memory{::getpid(), backing, budget, budget};
};

TEST_F(KernelSymbolsTest, NameOfADescriptorIsWithoutItsSuffix) {
  const auto found = find_kernel_symbol(memory, image + kernel_at);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->name, "_Z4axpyPf");
  EXPECT_EQ(found->name_address, image + strings_at + 10);
}

TEST_F(KernelSymbolsTest, NameWithoutSuffixStaysAsItIs) {
  EXPECT_EQ(name_of(other_at), "plain");
}

TEST_F(KernelSymbolsTest, AddressWithoutSymbolHasNoName) {
  EXPECT_EQ(name_of(kernel_at + 1), std::nullopt);
  EXPECT_EQ(name_of(0x7fc0), std::nullopt);
}

TEST_F(KernelSymbolsTest, AddressOutsideOfAllMemoryHasNoName) {
  EXPECT_EQ(find_kernel_symbol(memory, 0), std::nullopt);
  EXPECT_EQ(find_kernel_symbol(memory, ~0ULL), std::nullopt);
  EXPECT_EQ(find_kernel_symbol(memory, image - 1), std::nullopt);
  EXPECT_EQ(find_kernel_symbol(memory, image + image_bytes), std::nullopt);
}

TEST_F(KernelSymbolsTest, BytesWithoutAnElfHeaderHaveNoName) {
  put(0, std::uint32_t{0});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, NearestImageCounts) {
  // An image's start within the first one's pages, without tables.
  put_text(0x2000, std::string_view(ELFMAG, SELFMAG));
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, ImageOfAnotherMachineHasNoName) {
  put(offsetof(Elf64_Ehdr, e_machine), Elf64_Half{EM_X86_64});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, ProgramHeadersMustBeThere) {
  put(offsetof(Elf64_Ehdr, e_phoff), Elf64_Off{~0ULL - 7});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
  put(offsetof(Elf64_Ehdr, e_phoff), Elf64_Off{image_bytes - 16});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, ProgramHeadersOfAnotherSizeOrNumberAreRefused) {
  put(offsetof(Elf64_Ehdr, e_phnum), Elf64_Half{0xffff});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
  put(offsetof(Elf64_Ehdr, e_phnum), Elf64_Half{0});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
  put(offsetof(Elf64_Ehdr, e_phnum), Elf64_Half{2});
  put(offsetof(Elf64_Ehdr, e_phentsize), Elf64_Half{1});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, DynamicTableMayLackItsEnd) {
  // Up to the end of what is mapped, or of what is looked at.
  put(dynamic_at + 3 * sizeof(Elf64_Dyn), entry(DT_NEEDED, 1));
  EXPECT_EQ(name_of(kernel_at), "_Z4axpyPf");
  const std::uint64_t segment = headers_at + sizeof(Elf64_Phdr);
  put(segment + offsetof(Elf64_Phdr, p_vaddr), Elf64_Addr{image_bytes - 8});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, EachTableIsNeeded) {
  for (std::uint64_t i = 0; i < 3; ++i) {
    const std::uint64_t place = dynamic_at + i * sizeof(Elf64_Dyn);
    const auto kept = memory.read_as<Elf64_Dyn>(image + place);
    put(place, entry(DT_NEEDED, 1));
    EXPECT_EQ(name_of(kernel_at), std::nullopt) << i;
    put(place, entry(kept->d_tag, ~0ULL - 64));
    EXPECT_EQ(name_of(kernel_at), std::nullopt) << i;
    put(place, *kept);
  }
  EXPECT_EQ(name_of(kernel_at), "_Z4axpyPf");
}

TEST_F(KernelSymbolsTest, NumberOfSymbolsIsBounded) {
  put(hash_at + 4, std::uint32_t{0xffffffff});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
  // A number below the limit, of symbols that go past the end.
  put(hash_at + 4, std::uint32_t{1U << 20});
  EXPECT_EQ(name_of(kernel_at + 1), std::nullopt);
  put(hash_at + 4, std::uint32_t{2});
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, TableMayBeLong) {
  constexpr std::uint64_t table = 0x1000;
  put(dynamic_at, entry(DT_SYMTAB, table));
  put(hash_at + 4, std::uint32_t{1100});
  put(table + 1050 * sizeof(Elf64_Sym), symbol(25, kernel_at));
  EXPECT_EQ(name_of(kernel_at), "plain");
}

TEST_F(KernelSymbolsTest, NamePastTheEndIsNone) {
  auto bad = symbol(0xffffffff, kernel_at);
  put(symbols_at + 2 * sizeof bad, bad);
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
  // Not ended where the memory ends.
  bad.st_name = image_bytes - strings_at - 2;
  put(symbols_at + 2 * sizeof bad, bad);
  put_text(image_bytes - 2, "xx");
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, NameLongerThanAnyIsNone) {
  const std::string text(5000, 'x');
  put_text(0x4000, text);
  put(symbols_at + 2 * sizeof(Elf64_Sym), symbol(0x4000 - strings_at, kernel_at));
  EXPECT_EQ(name_of(kernel_at), std::nullopt);
}

TEST_F(KernelSymbolsTest, ImageIsNotLookedForAcrossGigabytes) {
  constexpr std::uint64_t far = 0x100000000;
  constexpr std::uint64_t bytes = std::uint64_t{1} << 30;
  map(memory, far, bytes);
  std::array<std::byte, image_bytes> whole{};
  ASSERT_TRUE(memory.read(image, whole));
  ASSERT_TRUE(memory.write(far, whole));
  ASSERT_TRUE(memory.write_as(far + symbols_at + 3 * sizeof(Elf64_Sym), symbol(25, bytes - 4096)));
  EXPECT_TRUE(find_kernel_symbol(memory, far + kernel_at));
  EXPECT_FALSE(find_kernel_symbol(memory, far + bytes - 4096));
}

}  // namespace
}  // namespace eclip::kfdsim
