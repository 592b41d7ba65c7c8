#include "daemon/node_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace quarry::daemon {
namespace {

// The context of the error, or "" where the text is accepted.
std::string refusal(std::string_view text) {
  const auto config = parse_config(text, "node.toml");
  if (config) return {};
  EXPECT_EQ(config.error().code(), Code::misconfigured) << text << ": " << config.error().to_string();
  return config.error().context();
}
std::string refusal_of(std::string_view line) { return refusal(fmt::format("root = \"/r\"\n{}\n", line)); }

TEST(NodeConfig, every_setting_is_read) {
  const auto config = parse_config(R"(
root = "/srv/q"
s3 = "0.0.0.0:9100"
admin = "[::1]:9101"
devices = ["/dev/sdb", "kfs:/srv/k", "dir:/srv/d"]
drives = 7
drive_size = "1GiB"
profile = "ec:2+1"
tls = true
tls_certificate = "c.pem"
tls_key = "k.pem"
cache_size = "100MiB"
cores = 3
virtual_hosts = ["s3.example.com", "files.example.com"]
region = "eu-north-7"
drain_timeout = "2m"
log_level = "warning"
)",
                                   "node.toml");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->root, "/srv/q");
  EXPECT_EQ(config->s3.to_string(), "0.0.0.0:9100");
  EXPECT_EQ(config->admin.to_string(), "[::1]:9101");
  EXPECT_EQ(config->devices, (std::vector<std::string>{"/dev/sdb", "kfs:/srv/k", "dir:/srv/d"}));
  EXPECT_EQ(config->drives, 7u);
  EXPECT_EQ(config->drive_bytes, kGiB);
  EXPECT_EQ(config->profile, "ec:2+1");
  EXPECT_TRUE(config->tls);
  EXPECT_EQ(config->tls_certificate + config->tls_key, "c.pemk.pem");
  EXPECT_EQ(config->cache_bytes, 100 * kMiB);
  EXPECT_EQ(config->cores, 3u);
  EXPECT_EQ(config->virtual_hosts, (std::vector<std::string>{"s3.example.com", "files.example.com"}));
  EXPECT_EQ(config->region, "eu-north-7");
  EXPECT_EQ(config->drain_timeout, std::chrono::minutes(2));
  EXPECT_EQ(config->log_level, LogLevel::warning);
}

TEST(NodeConfig, what_is_not_said_has_its_default) {
  const auto config = parse_config("root = '/r'", "node.toml");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->s3.to_string(), "127.0.0.1:9000");
  EXPECT_EQ(config->drives, 6u);
  EXPECT_FALSE(config->tls);
  EXPECT_EQ(config->region, "us-east-1");
}

TEST(NodeConfig, a_misspelt_setting_and_a_value_of_the_wrong_type_name_their_line) {
  for (const char* line : {"drive = 3", "drives = \"3\"", "drives = 3.0", "tls = 1", "tls = \"true\"", "devices = \"/dev/sdb\"",
                           "devices = [1]", "s3 = 9000", "drive_size = 1073741824", "drain_timeout = 30", "[section]", "region = true"}) {
    const std::string why = refusal_of(line);
    EXPECT_EQ(why.find("node.toml:2: "), 0u) << line << " -> " << why;
  }
}

TEST(NodeConfig, a_broken_text_names_its_line) {
  EXPECT_EQ(refusal("root = '/r'\ndrives = = 3").find("node.toml:2: "), 0u);
  EXPECT_NE(refusal("root = '/r"), "");
  EXPECT_NE(refusal("["), "");
  EXPECT_NE(refusal("\xff\xfe"), "");
  EXPECT_NE(refusal(""), "") << "a root must be named";
}

TEST(NodeConfig, bounds_are_kept_on_both_sides) {
  EXPECT_EQ(refusal_of("drives = 1"), "");
  EXPECT_EQ(refusal_of("drives = 64"), "");
  for (const char* line : {"drives = 0", "drives = 65", "drives = -1", "drives = 4294967297", "drives = 9223372036854775807"})
    EXPECT_NE(refusal_of(line), "") << line;
  EXPECT_EQ(refusal_of("drive_size = '64MiB'"), "");
  for (const char* line : {"drive_size = '67104768'", "drive_size = '67108865'", "drive_size = '0'"})
    EXPECT_NE(refusal_of(line), "") << line;
  EXPECT_EQ(refusal_of("cores = 0"), "");
  EXPECT_EQ(refusal_of("cores = 1024"), "");
  for (const char* line : {"cores = -1", "cores = 1025", "cores = 4294967296"}) EXPECT_NE(refusal_of(line), "") << line;
  EXPECT_NE(refusal_of("region = ''"), "");
}

TEST(NodeConfig, file_backed_drives_are_not_judged_where_devices_are_named) {
  EXPECT_EQ(refusal_of("devices = ['/dev/sdb']\ndrives = 65"), "");
}

TEST(NodeConfig, devices_of_an_unknown_kind_or_without_a_path_are_refused) {
  EXPECT_NE(refusal_of("devices = ['tape:/dev/st0']").find("tape"), std::string::npos);
  EXPECT_NE(refusal_of("devices = ['']"), "");
  EXPECT_NE(refusal_of("devices = ['kfs:']"), "");
}

TEST(NodeConfig, certificate_and_key_belong_together) {
  EXPECT_NE(refusal_of("tls_certificate = 'c.pem'"), "");
  EXPECT_NE(refusal_of("tls_key = 'k.pem'"), "");
  EXPECT_EQ(refusal_of("tls_certificate = 'c.pem'\ntls_key = 'k.pem'"), "");
}

TEST(NodeConfig, addresses_sizes_durations_and_levels_are_checked) {
  for (const char* line : {"s3 = 'nowhere'", "s3 = '127.0.0.1:70000'", "admin = ':'", "cache_size = 'much'", "drive_size = '8 elephants'",
                           "drain_timeout = '-5s'", "drain_timeout = 'soon'", "log_level = 'loud'"})
    EXPECT_EQ(refusal_of(line).find("node.toml:2: "), 0u) << line;
  for (const char* level : {"debug", "info", "warning", "error"}) EXPECT_TRUE(parse_log_level(level)) << level;
}

TEST(NodeConfig, a_file_is_read_and_one_that_is_none_is_refused) {
  std::string folder = (std::filesystem::temp_directory_path() / "quarry-config-XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/node.toml";
  EXPECT_EQ(read_config_file(path).error().code(), Code::not_found);
  std::ofstream(path) << "root = '/r'\ndrives = 3\n";
  const auto config = read_config_file(path);
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->drives, 3u);
  std::ofstream(path) << "root = '/r'\n#" << std::string(1 << 20, 'x');
  const auto large = read_config_file(path);
  ASSERT_FALSE(large);
  EXPECT_NE(large.error().context().find("is it a configuration file"), std::string::npos);
  EXPECT_FALSE(read_config_file(folder));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace quarry::daemon
