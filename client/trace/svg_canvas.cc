// SPDX-License-Identifier: Apache-2.0
#include "client/trace/svg_canvas.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace annulus::trace {

std::string EscapeXml(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += (c >= ' ' && c <= '~') ? c : '?';
    }
  }
  return escaped;
}

void SvgCanvas::AddBox(const Box& box, std::string_view fill, std::string_view css_class,
                       std::string_view tooltip) {
  absl::StrAppendFormat(
      &body_, "<rect class=\"%s\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\"",
      EscapeXml(css_class), box.x, box.y, box.width, box.height, EscapeXml(fill));
  if (tooltip.empty()) {
    absl::StrAppend(&body_, "/>\n");
  } else {
    absl::StrAppend(&body_, "><title>", EscapeXml(tooltip), "</title></rect>\n");
  }
}

void SvgCanvas::AddLine(double x1, double y1, double x2, double y2, std::string_view color) {
  absl::StrAppendFormat(&body_,
                        "<line x1=\"%.2f\" y1=\"%.1f\" x2=\"%.2f\" y2=\"%.1f\" stroke=\"%s\"/>\n",
                        x1, y1, x2, y2, EscapeXml(color));
}

void SvgCanvas::AddText(double x, double y, std::string_view text, const TextStyle& style) {
  absl::StrAppendFormat(
      &body_,
      "<text x=\"%.2f\" y=\"%.1f\" font-size=\"%g\" text-anchor=\"%s\" fill=\"%s\"%s>%s</text>\n",
      x, y, style.size, EscapeXml(style.anchor), EscapeXml(style.color),
      style.bold ? " font-weight=\"600\"" : "", EscapeXml(text));
}

std::string SvgCanvas::Finish(double width, double height, std::string_view title) const {
  return absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
      "viewBox=\"0 0 %.0f %.0f\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
      "<title>%s</title>\n"
      "<defs><pattern id=\"wait\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" "
      "patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"#fdeaea\"/>"
      "<rect width=\"2\" height=\"5\" fill=\"#d1242f\"/></pattern></defs>\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n",
      width, height, width, height, EscapeXml(title), body_);
}

}  // namespace annulus::trace
