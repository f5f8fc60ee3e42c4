#include "ipc/cu_mask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace eclip {
namespace {

using ::testing::HasSubstr;

TEST(CuMask, ParsesAndPrintsTheCuListGrammar) {
  const auto mask = CuMask::parse("0-15,32-47, 59", 60);
  ASSERT_TRUE(mask);
  EXPECT_EQ(mask->count(), 33U);
  EXPECT_EQ(mask->to_string(), "0-15,32-47,59");
  EXPECT_TRUE(mask->contains(47));
  EXPECT_FALSE(mask->contains(48));
}

TEST(CuMask, ParsesHexLowestBitFirst) {
  const auto mask = CuMask::parse("0x111111111111111", 60);  // shader engine 0 of four
  ASSERT_TRUE(mask);
  EXPECT_EQ(mask->count(), 15U);
  EXPECT_TRUE(mask->contains(56));
  EXPECT_FALSE(mask->contains(57));
}

TEST(CuMask, PrintingAndParsingGiveTheSameSet) {
  for (const char* list : {"", "0", "31", "32", "0-59", "1,3,5-9,58-59"}) {
    auto mask = CuMask(60);
    if (*list != '\0') mask = *CuMask::parse(list, 60);
    EXPECT_EQ(mask.to_string(), list);
  }
}

TEST(CuMask, RefusesWhatIsOutsideTheGpuOrMalformedNamingThePart) {
  const auto message = [](const char* list) {
    const auto mask = CuMask::parse(list, 60);
    return mask ? "parsed" : mask.error().message();
  };
  EXPECT_THAT(message("50-60"), HasSubstr("CU 60"));
  EXPECT_THAT(message("50-60"), HasSubstr("has CUs 0-59"));
  EXPECT_THAT(message("0x1000000000000000"), HasSubstr("CU 60"));
  EXPECT_THAT(message("9-3"), HasSubstr("'9-3' runs backwards"));
  EXPECT_THAT(message("1,,2"), HasSubstr("'' is not a number"));
  EXPECT_THAT(message("-1"), HasSubstr("'' is not a number"));
  EXPECT_THAT(message("1-"), HasSubstr("'' is not a number"));
  EXPECT_THAT(message("a"), HasSubstr("'a' is not a number"));
  EXPECT_THAT(message("0x"), HasSubstr("no hex digits"));
  EXPECT_THAT(message("0xfg"), HasSubstr("not a hex number"));
  EXPECT_THAT(message("99999999999999999999"), HasSubstr("not a number"));
}

TEST(CuMask, ConvertsFromTheWordsThatTheKfdTakes) {
  const std::array<std::uint32_t, 2> words{0x80000001, 0x08000000};
  const auto mask = CuMask::from_words(60, words);
  ASSERT_TRUE(mask);
  EXPECT_EQ(mask->to_string(), "0,31,59");
  EXPECT_TRUE(std::ranges::equal(mask->words(), words));
  EXPECT_FALSE(CuMask::from_words(59, words));
}

TEST(CuMask, CountsTheCusInBothSets) {
  const auto a = *CuMask::parse("0-29", 60);
  const auto b = *CuMask::parse("20-49", 60);
  EXPECT_EQ(a.overlap(b), 10U);
  EXPECT_EQ(a.overlap(CuMask(60)), 0U);
}

TEST(HsaCuMask, SplitsGpusAndCuLists) {
  const auto entries = parse_hsa_cu_mask("0:0-15,32-47; 1-2,4 : 0xff");
  ASSERT_TRUE(entries);
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ((*entries)[0].gpus, std::vector<std::uint32_t>{0});
  EXPECT_EQ((*entries)[0].cu_list, "0-15,32-47");
  EXPECT_EQ((*entries)[1].gpus, (std::vector<std::uint32_t>{1, 2, 4}));
  EXPECT_EQ((*entries)[1].cu_list, "0xff");
}

TEST(HsaCuMask, RefusesASetWithoutGpuOrWithHugeGpuRanges) {
  EXPECT_FALSE(parse_hsa_cu_mask("0-15"));
  EXPECT_FALSE(parse_hsa_cu_mask(""));
  EXPECT_FALSE(parse_hsa_cu_mask("0:0-3;"));
  EXPECT_FALSE(parse_hsa_cu_mask("0-4000000000:0-3"));
}

}  // namespace
}  // namespace eclip
