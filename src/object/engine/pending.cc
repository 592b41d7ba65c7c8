// Operations whose files land next; each answers `unsupported` until then.
#include "object/engine/engine.h"

namespace quarry::object {
namespace {
Error later() { return fail(Code::unsupported, "not in this build yet"); }
}  // namespace
Task<Result<VersionListPage>> Engine::list_versions(const RequestContext&, std::string, VersionListOptions) { co_return later(); }
Task<Result<UploadInfo>> Engine::create_upload(const RequestContext&, std::string, std::string, PutOptions, ChecksumType) { co_return later(); }
Task<Result<UploadInfo>> Engine::get_upload(const RequestContext&, std::string, std::string, std::string) { co_return later(); }
Task<Result<std::unique_ptr<ObjectWriter>>> Engine::put_part(const RequestContext&, std::string, std::string, std::string, uint32_t, PutOptions) { co_return later(); }
Task<Result<PartListPage>> Engine::list_parts(const RequestContext&, std::string, std::string, std::string, uint32_t, size_t) { co_return later(); }
Task<Result<UploadListPage>> Engine::list_uploads(const RequestContext&, std::string, UploadListOptions) { co_return later(); }
Task<Result<ObjectInfo>> Engine::complete_upload(const RequestContext&, std::string, std::string, std::string, CompleteOptions) { co_return later(); }
Task<Result<void>> Engine::abort_upload(const RequestContext&, std::string, std::string, std::string) { co_return later(); }
Task<Result<ObjectEngine::FsckReport>> Engine::fsck(const RequestContext&, bool) { co_return later(); }
}  // namespace quarry::object
