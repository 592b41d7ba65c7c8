#include "cli/parse.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/command_tree.h"
#include "cli/options.h"
#include "cli/version.h"

namespace quarry::cli {
namespace {

CommandShape shape_of(const CLI::App& app) {
  CommandShape shape{app.get_name(), app.get_description(), {}, {}};
  for (const CLI::Option* option : app.get_options()) {
    if (option->nonpositional())
      shape.options.push_back({option->get_name(), option->get_description(), option->get_items_expected_max() > 0});
  }
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) shape.commands.push_back(shape_of(*command));
  return shape;
}

void add_target(CLI::App& app, Target& target) {
  app.add_option("--root", target.root, "the node's directory (default: $QUARRY_ROOT, else ~/.quarry)");
  app.add_option("--s3", target.s3, "URL of the S3 endpoint, instead of --root");
  app.add_option("--admin", target.admin, "URL of the admin endpoint, instead of --root");
  app.add_option("--access-key", target.access_key, "access key (default: the node's; else $QUARRY_ACCESS_KEY or $AWS_ACCESS_KEY_ID)");
  app.add_option("--secret-key-file", target.secret_key_file,
                 "file that holds the secret key (else $QUARRY_SECRET_KEY or $AWS_SECRET_ACCESS_KEY)");
  app.add_option("--ca-file", target.ca_file, "certificate authority for https endpoints");
  app.add_option("--region", target.region, "region used in signatures (default: the node's; else us-east-1)");
  app.add_flag("--json", target.json, "print JSON");
  app.add_flag("--quiet,-q", target.quiet, "no progress display");
}

void add_accept_loss(CLI::App& app, UpOptions& o) {
  app.add_flag("--accept-loss", o.accept_loss,
               "start although so many drives are away that what was written last may be on them alone: gives that up");
}

void add_node_options(CLI::App& app, UpOptions& o) {
  app.add_option("--s3", o.s3, "address of the S3 listener")->capture_default_str();
  app.add_option("--admin", o.admin, "address of the admin listener")->capture_default_str();
  app.add_option("--drives", o.drives, "number of file-backed drives to make on the first start")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--drive-size", o.drive_size, "size of each file-backed drive")->capture_default_str();
  app.add_option("--device", o.devices,
                 "what to store on, instead of --drives (repeatable): PATH of a block device or file, kfs:DIRECTORY, dir:DIRECTORY");
  app.add_option("--profile", o.profile,
                 "redundancy, decided on the first start: how many drives may fail without loss of data.\n"
                 "  kamikaze   none: a failed drive takes data with it (the default with one drive)\n"
                 "  economy    1 (the default with two or three drives)\n"
                 "  standard   2 (the default from four drives on)\n"
                 "  resilient  3\n"
                 "  fortress   4\n"
                 "  ec:K+M     M: objects in K pieces, and M more to recover from, on K + M drives\n"
                 "  mirror:N   N - 1: N copies\n"
                 "  whole:K+M  M + 1: one whole copy, and K + M pieces of 1/K each to recover from\n"
                 "The more, the more space: economy on five drives stores 1 GiB in 1.25 GiB, standard on six in 1.5 GiB");
  app.add_flag("--tls", o.tls, "serve S3 and admin over TLS 1.3 (always on for addresses beyond loopback)");
  app.add_option("--tls-certificate", o.tls_certificate, "PEM file; default: a self-signed certificate made under --root");
  app.add_option("--tls-key", o.tls_key, "PEM file of the certificate's key");
  app.add_option("--cache-size", o.cache_size, "memory for the read cache, or auto (a quarter of the memory, at most 4 GiB)")
      ->capture_default_str();
  app.add_option("--cores", o.cores, "event loops (0: one for each processor)")->capture_default_str();
  app.add_option("--log-level", o.log_level, "debug, info, warning or error")->capture_default_str();
  app.add_flag("--force", o.force,
               "where no drive carries a store, make a new one, whatever the drives carry and whatever store this root had: DESTROYS it");
  add_accept_loss(app, o);
  app.add_flag("--json", o.json, "print the endpoints as JSON when ready");
}

template <class Command>
void add_kfs(CLI::App& app, KfsOptions& o, Command command) {
  auto* kfs_app = app.add_subcommand(
      "kfs",
      "a store of files by the hash of their content, in a directory, without a node: write, read, stat, list, unlink, compact, verify");
  kfs_app->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, KfsVerb verb) -> CLI::App* {
    auto* at = kfs_app->add_subcommand(name, help);
    at->add_option("--store", o.store, "directory of the store")->required();
    at->add_flag("--json", o.json, "print JSON");
    at->add_flag("--quiet,-q", o.quiet, "no progress display");
    command(at, [&o, verb] { return run_kfs(o, verb); });
    return at;
  };
  CLI::App* write_app =
      add("write", "store a file (- is standard input) and print its hash; makes the store on the first write", KfsVerb::write);
  write_app->add_option("FILE", o.operand, "FILE")->required();
  write_app->add_option_function<std::string>(
      "--key",
      [&o](const std::string& key) {
        o.key = key;
        o.key_given = true;
      },
      "first write: the key whose first byte sorts files into buckets (default: random)");
  write_app->add_option("--hash", o.hash, "first write: sha256 (default) or sha512");
  write_app->add_option("--bucket-size", o.bucket_size, "first write: limit of each of the 256 buckets (default: 32GiB)");
  CLI::App* read_app = add("read", "write a file's bytes to standard output", KfsVerb::read);
  read_app->add_option("HASH", o.operand, "HASH")->required();
  read_app->add_option("--offset", o.offset, "first byte");
  read_app->add_option("--length", o.length, "so many bytes");
  add("stat", "size and place of a file; without a hash: the store and each bucket", KfsVerb::stat)->add_option("HASH", o.operand, "HASH");
  add("list", "hash and size of every file", KfsVerb::list);
  add("unlink", "remove a file", KfsVerb::unlink)->add_option("HASH", o.operand, "HASH")->required();
  add("compact", "give back the space of unlinked files", KfsVerb::compact)
      ->add_option("--bucket", o.bucket, "only this bucket")
      ->check(CLI::Range(0, 255));
  CLI::App* verify_app = add("verify", "read and check every file", KfsVerb::verify);
  verify_app->add_flag("--repair", o.repair, "rebuild buckets that cannot be opened, remove files that are not whole");
  verify_app->add_flag("--shallow", o.shallow, "records only, not the content");
}

// Explains a mistake and says what to type instead.
int explain(CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help
  // The command that was reached, and the first word it does not know.
  const CLI::App* at = &app;
  std::string words = "quarry";
  for (int i = 1; i < argc; ++i) {
    const CLI::App* next = nullptr;
    for (const CLI::App* command : at->get_subcommands([](const CLI::App*) { return true; })) {
      if (command->get_name() == argv[i]) next = command;
    }
    if (next == nullptr) {
      const std::string typed = argv[i];
      std::vector<std::string> candidates;
      const CommandShape shape = shape_of(*at);
      if (typed.starts_with("-")) {
        for (const CLI::Option* option : at->get_options()) {
          for (const auto& name : option->get_lnames()) candidates.push_back("--" + name);
          for (const auto& name : option->get_snames()) candidates.push_back("-" + name);
        }
      } else {
        for (const auto& command : shape.commands) candidates.push_back(command.name);
      }
      const bool known = std::find(candidates.begin(), candidates.end(), typed.substr(0, typed.find('='))) != candidates.end();
      const bool joined =
          typed.size() > 2 && typed[1] != '-' && std::ranges::find(candidates, typed.substr(0, 2)) != candidates.end();  // -j8
      if (known || joined || typed == "-" || (!typed.starts_with("-") && shape.commands.empty())) continue;
      const std::string meant = closest(typed.substr(0, typed.find('=')), candidates);
      fmt::print(stderr, "quarry: there is no '{}' here\n", typed);
      if (!meant.empty()) fmt::print(stderr, "  did you mean:  {} {}\n", words, meant);
      fmt::print(stderr, "  see:  {} --help\n", words);
      return 2;
    }
    at = next;
    words += " " + next->get_name();
  }
  fmt::print(stderr, "quarry: {}\n  see:  {} --help\n", error.what(), words);
  return 2;
}

}  // namespace

int parse_and_run(int argc, char** argv) {
  CLI::App app{"Quarry: one store for AI data", "quarry"};
  app.require_subcommand(1);
  app.fallthrough(false);
  app.set_version_flag("--version", std::string(kVersion));
  int status = 0;
  const auto command = [&status](CLI::App* at, auto run) { at->callback([&status, run] { status = run(); }); };

  UpOptions up;
  auto* up_app = app.add_subcommand("up", "start a node in the foreground, making it on the first start");
  up_app->add_option("--root", up.root, "directory of the node (default: $QUARRY_ROOT, else ~/.quarry)");
  add_node_options(*up_app, up);
  command(up_app, [&] {
    up.drives_given = up_app->count("--drives") > 0 || up_app->count("--drive-size") > 0;
    return run_up(up);
  });

  UpOptions server;
  auto* server_app = app.add_subcommand("server", "start a node as a configuration file says");
  server_app->add_option("--config", server.config, "TOML file (docs/guide/configuration.md)")->required()->check(CLI::ExistingFile);
  add_accept_loss(*server_app, server);
  server_app->add_flag("--json", server.json, "print the endpoints as JSON when ready");
  command(server_app, [&] { return run_up(server); });

  BucketOptions bucket;
  auto* bucket_app = app.add_subcommand("bucket", "buckets: create, list, info, set, rewrite, delete");
  bucket_app->require_subcommand(1);
  const auto bucket_command = [&](const char* name, const char* help, bool named, int (*run)(const BucketOptions&)) {
    auto* at = bucket_app->add_subcommand(name, help);
    if (named) at->add_option("NAME", bucket.name, "name of the bucket")->required();
    add_target(*at, bucket.target);
    command(at, [&bucket, run] { return run(bucket); });
    return at;
  };
  const auto bucket_settings = [&](CLI::App* at) {
    at->add_option("--redundancy", bucket.redundancy, "profile, ec:k+m, mirror:n or whole:k+m for new objects");
    at->add_option("--versioning", bucket.versioning, "enabled or suspended")->check(CLI::IsMember({"enabled", "suspended"}));
    at->add_option("--quota", bucket.quota_bytes, "most bytes the bucket may hold; 0: unlimited");
    at->add_option("--quota-objects", bucket.quota_objects, "most objects the bucket may hold; 0: unlimited");
    at->add_option("--inline-limit", bucket.inline_limit, "objects up to this size live in the metadata");
    at->add_option("--pack-limit", bucket.pack_limit, "objects up to this size are mirrored whole");
  };
  bucket_settings(bucket_command("create", "make a bucket", true, run_bucket_create));
  bucket_command("list", "your buckets", false, run_bucket_list);
  bucket_command("info", "settings and usage of a bucket", true, run_bucket_info);
  bucket_settings(bucket_command("set", "change settings of a bucket", true, run_bucket_set));
  auto* rewrite_app = bucket_command("rewrite", "bring existing objects to the redundancy of the bucket", true, run_bucket_rewrite);
  rewrite_app->add_option("--prefix", bucket.prefix, "only objects whose keys begin so");
  rewrite_app->add_flag("--no-wait", bucket.no_wait, "do not wait until repair has made all copies");
  bucket_command("delete", "delete an empty bucket", true, run_bucket_delete)
      ->add_flag("--force", bucket.force, "delete all its objects and their versions first");

  ObjectOptions object;
  auto* object_app = app.add_subcommand("object", "objects: put, get, cat, cp, ls, rm, stat, pin, unpin");
  object_app->require_subcommand(1);
  const auto object_command = [&](const char* name, const char* help, const char* operands, auto run) {
    auto* at = object_app->add_subcommand(name, help);
    at->add_option(operands, object.paths, operands)->required();
    add_target(*at, object.target);
    command(at, [&object, run] { return run(object); });
    return at;
  };
  const auto transfer_flags = [&](CLI::App* at) {
    at->add_flag("--recursive,-r", object.recursive, "whole directories or prefixes");
    at->add_option("--jobs,-j", object.jobs, "files and parts in flight")->capture_default_str()->check(CLI::Range(1, 256));
    at->add_option("--part-size", object.part_size, "size of the parts of large files")->capture_default_str();
    at->add_flag("--no-resume", object.no_resume, "start anew instead of continuing an interrupted transfer");
  };
  auto* put_app = object_command("put", "files to objects: put FILE... BUCKET/KEY (or -r DIR BUCKET/PREFIX; - is standard input)",
                                 "FILE... BUCKET/KEY", run_object_put);
  transfer_flags(put_app);
  put_app->add_flag("--skip-same", object.skip_same, "do not send files whose size and MD5 the object has");
  transfer_flags(
      object_command("get", "objects to files: get BUCKET/KEY [FILE] (or -r BUCKET/PREFIX DIR)", "BUCKET/KEY [FILE]", run_object_get));
  object_command("cat", "objects to standard output", "BUCKET/KEY...", run_object_cat);
  transfer_flags(object_command("cp", "copy inside the store: cp FROM TO", "FROM TO", run_object_copy));
  auto* ls_app = object_command("ls", "list: ls BUCKET[/PREFIX]", "BUCKET[/PREFIX]", run_object_list);
  ls_app->add_flag("--recursive,-r", object.recursive, "all keys below, not only one level");
  ls_app->add_option("--limit", object.limit, "stop after so many (0: all)");
  auto* rm_app = object_command("rm", "delete objects", "BUCKET/KEY...", run_object_remove);
  rm_app->add_flag("--recursive,-r", object.recursive, "all keys with the prefix");
  rm_app->add_option("--jobs,-j", object.jobs, "batches in flight")->capture_default_str();
  object_command("stat", "everything about an object", "BUCKET/KEY...", run_object_stat);
  object_command("pin", "keep an object in the read cache", "BUCKET/KEY...",
                 [](const ObjectOptions& o) { return run_object_pin(o, true); });
  object_command("unpin", "let an object leave the read cache", "BUCKET/KEY...",
                 [](const ObjectOptions& o) { return run_object_pin(o, false); });

  DeviceOptions device;
  auto* device_app =
      app.add_subcommand("device", "drives: list, format, inspect, fsck; on a running node: add, drain, remove, replace, disable, enable");
  device_app->require_subcommand(1);
  const auto device_command = [&](const char* name, const char* help, bool path, auto run) {
    auto* at = device_app->add_subcommand(name, help);
    if (path) at->add_option("PATH", device.path, "block device or file, kfs:DIRECTORY, dir:DIRECTORY")->required();
    at->add_flag("--json", device.target.json, "print JSON");
    command(at, [&device, run] { return run(device); });
    return at;
  };
  device_command("list", "drives of the node, and block devices of this machine with what they carry", false, run_device_list)
      ->add_option("--root", device.target.root, "directory of the node (default: $QUARRY_ROOT, else ~/.quarry)");
  auto* format_app = device_command("format", "prepare a device or file for Quarry", true, run_device_format);
  format_app->add_option("--cluster", device.cluster, "UUID of the cluster it will belong to (default: decided by the node that adds it)");
  format_app->add_flag("--force", device.force, "even if it carries a partition table, a file system or another store: DESTROYS it");
  auto* inspect =
      device_command("inspect", "print the structures on a device, or what is known of a file below a mountpath", true, run_device_inspect);
  inspect->add_option("--chunk", device.chunk, "where this chunk lies, and its header");
  inspect->add_option("--segment", device.segment, "the slots, frames and chunk headers of this segment");
  inspect->add_flag("--no-verify", device.no_verify, "of a file below a mountpath: do not read its bytes");
  device_command("fsck", "check a device that is not in use", true, run_device_fsck);
  const auto change = [&](const char* name, const char* help, bool number, bool path) {
    auto* at = device_app->add_subcommand(name, help);
    if (number) at->add_option("NUMBER", device.number, "number of the drive (quarry status)")->required();
    if (path) at->add_option("PATH", device.path, "block device or file, kfs:DIRECTORY, dir:DIRECTORY")->required();
    at->add_flag("--force", device.force, "go on although data would be at risk, or the device carries something else");
    add_target(*at, device.target);
    const std::string verb = name;
    command(at, [&device, verb] { return run_device_change(device, verb.c_str()); });
  };
  change("add", "add a drive to a running node", false, true);
  change("drain", "move all data off a drive", true, false);
  change("remove", "take a drive out", true, false);
  change("replace", "put a new drive in the place of another", true, true);
  change("disable", "use a drive for nothing until it is enabled; its data is rebuilt elsewhere after the grace for missing drives", true,
         false);
  change("enable", "use a drive again that was disabled, failed its health check, or vanished and is back", true, false);

  AdoptOptions adopt;
  auto* adopt_app = app.add_subcommand("adopt", "make the files of a directory the objects of a bucket, where they lie");
  adopt_app->add_option("DIR", adopt.directory, "a directory on a dir drive of the node, or one that is to become one (--attach)")
      ->required();
  adopt_app->add_option("BUCKET", adopt.bucket, "the bucket; it is made if it is not there")->required();
  adopt_app->add_flag("--replace", adopt.replace, "files take the place of objects that have the same key");
  adopt_app->add_flag("--attach", adopt.attach, "make DIR a dir drive of the node first, if it lies on none");
  adopt_app->add_flag("--prune", adopt.prune, "delete the objects whose files are gone");
  add_target(*adopt_app, adopt.target);
  command(adopt_app, [&adopt] { return run_adopt(adopt); });

  UserOptions user;
  auto* user_app = app.add_subcommand("user", "users: list, create, enable, disable, delete");
  user_app->require_subcommand(1);
  auto* key_app = app.add_subcommand("key", "access keys: show, list, create, enable, disable, delete");
  key_app->require_subcommand(1);
  const auto identity_command = [&](CLI::App* parent, const char* name, const char* help, const char* operand, std::string& field,
                                    auto run) {
    auto* at = parent->add_subcommand(name, help);
    if (operand != nullptr) at->add_option(operand, field, operand)->required();
    add_target(*at, user.target);
    command(at, [&user, run] { return run(user); });
    return at;
  };
  identity_command(user_app, "list", "all users", nullptr, user.name, run_user_list);
  identity_command(user_app, "create", "make a user", "NAME", user.name, run_user_create)
      ->add_flag("--administrator", user.administrator, "may do everything");
  identity_command(key_app, "show", "the access key and secret key that the node's directory holds", nullptr, user.name, run_key_show);
  identity_command(key_app, "list", "keys of a user", "USER", user.name, run_key_list);
  auto* key_create = identity_command(key_app, "create", "make an access key; its secret is shown once", "USER", user.name, run_key_create);
  key_create->add_option("--key", user.access_key, "access key to use instead of a generated one");
  key_create->add_flag("--secret-from-stdin", user.secret_from_stdin, "read the secret from standard input instead of generating one");
  for (const char* verb : {"enable", "disable", "delete"}) {
    identity_command(user_app, verb, "a user, with all keys", "NAME", user.name,
                     [verb](const UserOptions& o) { return run_user_change(o, verb); });
    identity_command(key_app, verb, "an access key", "KEY", user.access_key,
                     [verb](const UserOptions& o) { return run_key_change(o, verb); });
  }

  NodeOptions node;
  auto* status_app = app.add_subcommand(
      "status", "drives, space, repair and health of a node; exits 0 healthy, 1 degraded, 2 data unreadable, 3 no answer");
  add_target(*status_app, node.target);
  status_app->add_flag("--watch,-w", node.watch, "show again every two seconds");
  status_app->add_flag("--jobs", node.jobs, "what was done for whom: requests, bytes and time by user, tenant, team, project and job");
  command(status_app, [&] { return run_status(node); });
  auto* fsck_app = app.add_subcommand("fsck", "prove the invariants of a node's data, running or stopped; names every violation");
  add_target(*fsck_app, node.target);
  fsck_app->add_flag("--repair", node.repair, "also remove orphans and mend what can be mended");
  fsck_app->add_option("--device", node.device, "a drive of a stopped node, instead of those under --root (repeatable)");
  command(fsck_app, [&] { return run_fsck(node); });
  auto* scrub_app = app.add_subcommand("scrub", "start checking all stored bytes in the background");
  add_target(*scrub_app, node.target);
  command(scrub_app, [&] { return run_scrub(node); });

  BenchOptions bench;
  auto* bench_app = app.add_subcommand("bench", "load an S3 endpoint and report rates and latencies");
  add_target(*bench_app, bench.target);
  bench_app->add_option("OPERATION", bench.operation, "put, get, mixed, list, stat or delete")
      ->capture_default_str()
      ->check(CLI::IsMember({"put", "get", "mixed", "list", "stat", "delete"}));
  bench_app->add_option("--size", bench.size, "size of the objects")->capture_default_str();
  bench_app->add_option("--connections,-c", bench.connections, "requests in flight")->capture_default_str()->check(CLI::Range(1, 4096));
  bench_app->add_option("--duration,-d", bench.duration, "how long")->capture_default_str();
  bench_app->add_option("--objects", bench.objects, "objects prepared for get, list and mixed")->capture_default_str();
  bench_app->add_option("--bucket", bench.bucket, "bucket to use")->capture_default_str();
  bench_app->add_option("--threads", bench.threads, "event loops of the load generator")->capture_default_str()->check(CLI::Range(1, 64));
  bench_app->add_flag("--keep", bench.keep, "leave the objects behind");
  bench_app->add_flag("--no-prepare", bench.no_prepare, "use the objects of an earlier run with --keep");
  bench_app->add_flag("--each-once", bench.each_once, "put every object once, however long it takes");
  bench_app->add_flag("--sign-body", bench.sign_body, "sign the SHA-256 of every body");
  command(bench_app, [&] { return run_bench(bench); });

  KfsOptions kfs;
  add_kfs(app, kfs, command);

  std::string shell;
  auto* completion_app = app.add_subcommand("completion", "print a completion script for bash, zsh or fish");
  completion_app->add_option("SHELL", shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command(completion_app, [&] {
    fmt::print("{}", completion_script(shape_of(app), shell));
    return 0;
  });
  bool version_as_json = false;
  auto* version_app = app.add_subcommand("version", "print the version");
  version_app->add_flag("--json", version_as_json, "print JSON");
  command(version_app, [&version_as_json] {
    fmt::print("{}{}{}\n", version_as_json ? "{\"version\":\"" : "quarry ", kVersion, version_as_json ? "\"}" : "");
    return 0;
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return explain(app, error, argc, argv);
  }
  return status;
}

}  // namespace quarry::cli
