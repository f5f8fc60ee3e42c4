#include "tools/eclipctl/top.h"

#define NCURSES_NOMACROS  // functions, so that they can be told apart from ours
#include <curses.h>
#include <fmt/core.h>
#include <unistd.h>

#include <memory>
#include <sstream>
#include <thread>

namespace eclip::ctl {
namespace {

/// The terminal in ncurses' hands while it lives.
class Screen {
 public:
  Screen() {
    ::initscr();
    ::cbreak();
    ::noecho();
    ::curs_set(0);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  ~Screen() { ::endwin(); }

  static void show(const std::string& title, const std::string& text) {
    ::erase();
    ::attron(A_BOLD);
    ::mvaddnstr(0, 0, title.c_str(), COLS);
    ::attroff(A_BOLD);
    std::istringstream lines(text);
    std::string line;
    for (int row = 2; row < LINES && std::getline(lines, line); ++row)
      ::mvaddnstr(row, 0, line.c_str(), COLS);
    ::refresh();
  }
  /// Waits; true when "q" was pressed meanwhile, or the terminal is gone.
  static bool quits_within(std::chrono::milliseconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    while (true) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          end - std::chrono::steady_clock::now());
      if (left.count() <= 0) return false;
      ::timeout(static_cast<int>(left.count()));
      const int key = ::getch();
      constexpr std::chrono::milliseconds early{50};
      if (key == 'q' || (key == ERR && std::chrono::steady_clock::now() + early < end)) return true;
    }
  }
};

}  // namespace

Result<void> show_repeatedly(const TopOptions& options, const std::string& title,
                             const std::function<Result<std::string>()>& next) {
  const auto interval = std::chrono::duration_cast<std::chrono::milliseconds>(options.interval);
  std::unique_ptr<Screen> screen;
  if (!title.empty() && !options.count && ::isatty(STDOUT_FILENO) != 0 &&
      ::isatty(STDIN_FILENO) != 0)
    screen = std::make_unique<Screen>();
  for (unsigned shown = 0; !options.count || shown < *options.count; ++shown) {
    if (screen) {
      if (Screen::quits_within(interval)) return {};
    } else {
      std::this_thread::sleep_for(interval);
    }
    const auto text = next();
    if (!text) return tl::unexpected(text.error());
    if (screen)
      Screen::show(title, *text);
    else
      fmt::print("{}{}", shown == 0 ? "" : "\n", *text);
    std::fflush(stdout);
  }
  return {};
}

}  // namespace eclip::ctl
