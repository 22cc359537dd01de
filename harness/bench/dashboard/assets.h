#pragma once

#include <string_view>

namespace attn::dashboard::assets {

/// Our own files of the folder assets, and those of uPlot ("" without npm), as bytes of the
/// program: cmake/EmbedFiles.cmake makes the definitions.
extern const std::string_view kPageHtml;
extern const std::string_view kStyleCss;
extern const std::string_view kScript;
extern const std::string_view kChartScript;
extern const std::string_view kChartCss;
extern const std::string_view kChartLicence;

}  // namespace attn::dashboard::assets
