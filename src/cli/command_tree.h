// The shape of the command line, free of the parsing library: what completion scripts and suggestions are made from.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace quarry::cli {

struct OptionShape {
  std::string name;  // with its dashes: "--root"
  std::string help;
  bool takes_value = false;
};

struct CommandShape {
  std::string name, help;
  std::vector<OptionShape> options;
  std::vector<CommandShape> commands;
};

// A script for bash, zsh or fish that completes commands and options; empty for another shell.
std::string completion_script(const CommandShape& root, std::string_view shell);

// The name among `candidates` that `typed` was most likely meant to be, or empty: edit distance of at most a third of its length.
std::string closest(std::string_view typed, const std::vector<std::string>& candidates);

}  // namespace quarry::cli
