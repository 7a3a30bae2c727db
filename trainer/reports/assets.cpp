#include "trainer/reports/assets.h"

// The assembler reads the files; CMake names them and knows that this file depends on them.
#define KT_FILE(NAME, PATH)                                                                  \
  asm(".pushsection .rodata\n"                                                               \
      ".local " #NAME "_begin, " #NAME "_end\n" #NAME "_begin: .incbin \"" PATH "\"\n" #NAME \
      "_end: .byte 0\n"                                                                      \
      ".popsection");                                                                        \
  extern "C" const char NAME##_begin[], NAME##_end[]

KT_FILE(kt_chart_library, KT_CHART_LIBRARY);
KT_FILE(kt_page_script, KT_PAGE_SCRIPT);
KT_FILE(kt_page_style, KT_PAGE_STYLE);

namespace kt {

std::string_view chart_library() { return {kt_chart_library_begin, kt_chart_library_end}; }
std::string_view page_script() { return {kt_page_script_begin, kt_page_script_end}; }
std::string_view page_style() { return {kt_page_style_begin, kt_page_style_end}; }

}  // namespace kt
