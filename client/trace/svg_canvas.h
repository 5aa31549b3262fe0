// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace annulus::trace {

// Text as it may stand in XML, in content and in attributes.
std::string EscapeXml(std::string_view text);

// Collects the elements of one SVG. Coordinates in pixels, y downwards.
class SvgCanvas {
 public:
  struct Box {
    double x = 0, y = 0, width = 0, height = 0;
  };
  struct TextStyle {
    double size = 12;
    std::string_view anchor = "start";  // start, middle, end
    std::string_view color = "#24292f";
    bool bold = false;
  };

  // `tooltip` may be empty.
  void AddBox(const Box& box, std::string_view fill, std::string_view css_class,
              std::string_view tooltip = {});
  void AddLine(double x1, double y1, double x2, double y2, std::string_view color);
  void AddText(double x, double y, std::string_view text, const TextStyle& style);

  // The whole file: white ground, a pattern "wait" of red hatching to fill with, the elements.
  std::string Finish(double width, double height, std::string_view title) const;

 private:
  std::string body_;
};

}  // namespace annulus::trace
