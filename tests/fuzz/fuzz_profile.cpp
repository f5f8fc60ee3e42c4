// Arbitrary bytes as a profile.
//
// What must hold: nothing that a sanitizer sees, errors that name their source; and what is read
// can be written and is the same when it is read again.
#include <string>

#include "daemon/model/profile.h"
#include "daemon/model/profile_document.h"
#include "daemon/model/profile_quality.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace eclip;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto document = model::parse_profile_document(text, "input");
  const auto profile = model::parse_profile(text, "input");
  if (!document) {
    if (!document.error().message().starts_with("input: "))
      fuzz::finding("an error without its source: " + document.error().message());
    if (profile) fuzz::finding("a profile that is no document");
    return 0;
  }
  if (profile)
    for (const model::ProfiledKernel& kernel : profile->kernels)
      for (const std::uint32_t cus : profile->cu_counts)
        if (!(kernel.kernel.time_on_mask_us(cus) > 0))
          fuzz::finding("a kernel whose time is not positive");
  if (!profile && !profile.error().message().starts_with("input: "))
    fuzz::finding("an error without its source: " + profile.error().message());
  static_cast<void>(model::rises(*document, 0));
  static_cast<void>(model::gaps(*document));
  const auto again = model::parse_profile_document(model::to_json(*document), "written");
  if (!again) fuzz::finding("what was written cannot be read: " + again.error().message());
  if (!(*again == *document)) fuzz::finding("what was written is read as something else");
  return 0;
}
