//! Runs one of object_store's own integration tests by name against an S3 bucket: `object-store-cases NAME`; `list` prints names.
//! Takes AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and BUCKET; the bucket must be empty.
//! A test that fails panics, so the exit status is the verdict.

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3ConditionalPut, S3CopyIfNotExists};
use object_store::integration::*;

const NAMES: &[&str] = &[
    "put_get_delete_list",
    "put_get_delete_list_unsigned_payload",
    "put_get_delete_list_sha256",
    "put_get_delete_list_crc64nvme",
    "put_get_attributes",
    "get_opts",
    "put_opts",
    "stream_get",
    "list_uses_directories_correctly",
    "list_with_delimiter",
    "list_paginated",
    "list_with_offset_exclusivity",
    "get_nonexistent_object",
    "rename_and_copy",
    "copy_if_not_exists",
    "copy_rename_nonexistent_object",
    "multipart",
    "multipart_with_opts",
    "multipart_put_part_out_of_order",
    "multipart_race_condition",
    "multipart_out_of_order",
];

fn builder() -> AmazonS3Builder {
    AmazonS3Builder::from_env()
        .with_bucket_name(std::env::var("BUCKET").expect("BUCKET"))
        .with_allow_http(true)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
}

fn store(builder: AmazonS3Builder) -> AmazonS3 {
    builder.build().expect("a store")
}

async fn run(name: &str) {
    let s3 = store(builder());
    match name {
        "put_get_delete_list" => put_get_delete_list(&s3).await,
        "put_get_delete_list_unsigned_payload" => put_get_delete_list(&store(builder().with_unsigned_payload(true))).await,
        "put_get_delete_list_sha256" => put_get_delete_list(&store(builder().with_checksum_algorithm(Checksum::SHA256))).await,
        "put_get_delete_list_crc64nvme" => put_get_delete_list(&store(builder().with_checksum_algorithm(Checksum::CRC64NVME))).await,
        "put_get_attributes" => put_get_attributes(&s3).await,
        "get_opts" => get_opts(&s3).await,
        "put_opts" => put_opts(&s3, true).await,
        "stream_get" => stream_get(&s3).await,
        "list_uses_directories_correctly" => list_uses_directories_correctly(&s3).await,
        "list_with_delimiter" => list_with_delimiter(&s3).await,
        "list_paginated" => list_paginated(&s3, &s3).await,
        "list_with_offset_exclusivity" => list_with_offset_exclusivity(&s3).await,
        "get_nonexistent_object" => {
            let error = get_nonexistent_object(&s3, None).await.expect_err("the object does not exist");
            assert!(matches!(error, object_store::Error::NotFound { .. }), "{error:?}");
        }
        "rename_and_copy" => rename_and_copy(&s3).await,
        "copy_if_not_exists" => copy_if_not_exists(&s3).await,
        "copy_rename_nonexistent_object" => copy_rename_nonexistent_object(&s3).await,
        "multipart" => multipart(&s3, &s3).await,
        "multipart_with_opts" => multipart_with_opts(&s3, &s3).await,
        "multipart_put_part_out_of_order" => multipart_put_part_out_of_order(&s3, &s3).await,
        "multipart_race_condition" => multipart_race_condition(&s3, true).await,
        "multipart_out_of_order" => multipart_out_of_order(&s3).await,
        _ => panic!("no such test: {name}"),
    }
}

#[tokio::main]
async fn main() {
    let name = std::env::args().nth(1).expect("usage: object-store-cases list | NAME");
    if name == "list" {
        NAMES.iter().for_each(|name| println!("{name}"));
    } else {
        run(&name).await;
    }
}
