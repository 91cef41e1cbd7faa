"""What S3 servers really answer: provider, status, body, and words that the operator is to read."""


def document(code: str, message: str, rest: str = "") -> str:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}<Error><Code>{code}</Code><Message>{message}</Message>{rest}</Error>"


PROVIDER_ERRORS = [
    (
        "Garage",
        400,
        document(
            "AuthorizationHeaderMalformed",
            "Authorization header malformed, unexpected scope: 20261123/us-east-1/s3/aws4_request",
            "<Resource>/</Resource><Region>garage</Region>",
        ),
        "this server expects region garage, you sent us-east-1",
    ),
    (
        "AWS",
        400,
        document(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'",
            "<Region>eu-central-1</Region><RequestId>44D2BCQKKCVVDS7C</RequestId><HostId>RY1=</HostId>",
        ),
        "this server expects region eu-central-1, you sent us-east-1",
    ),
    (
        "MinIO",
        400,
        document(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region is wrong; expecting 'eu-west-1'.",
            "<BucketName>media</BucketName><Resource>/media/</Resource><RequestId>17F2</RequestId><HostId>dd9025</HostId>",
        ),
        "this server expects region eu-west-1, you sent us-east-1",
    ),
    (
        "Garage behind a proxy that drops the region",
        400,
        document(
            "AuthorizationHeaderMalformed",
            "Authorization header malformed, unexpected scope: 20261123/us-east-1/s3/aws4_request",
        ),
        "expects region another than yours (Authorization header malformed, unexpected scope: 20261123/us-east-1",
    ),
    (
        "R2",
        400,
        document(
            "InvalidRegionName",
            "The region name 'us-east-1x' is not valid. Must be one of: wnam, enam, weur, eeur, apac, oc, auto",
        ),
        "does not know the region us-east-1: The region name 'us-east-1x' is not valid. Must be one of: wnam",
    ),
    (
        "AWS",
        301,
        document(
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint. "
            "Please send all future requests to this endpoint.",
            "<Endpoint>media.s3-eu-west-1.amazonaws.com</Endpoint><Bucket>media</Bucket>",
        ),
        "reached at another address: correct endpoint_url and region (media.s3-eu-west-1.amazonaws.com:",
    ),
    (
        "AWS",
        404,
        document(
            "NoSuchBucket",
            "The specified bucket does not exist",
            "<BucketName>media</BucketName><RequestId>1</RequestId><HostId>h</HostId>",
        ),
        "there is no bucket media at https://s3.example.org: create it, or correct its name",
    ),
    (
        "Garage",
        404,
        document(
            "NoSuchBucket",
            "Bucket not found: media",
            "<Resource>/media/</Resource><Region>garage</Region>",
        ),
        "there is no bucket media",
    ),
    (
        "Ceph",
        404,
        document(
            "NoSuchBucket",
            "",
            "<BucketName>media</BucketName><RequestId>tx000</RequestId><HostId>default</HostId>",
        ),
        "there is no bucket media",
    ),
    (
        "AWS",
        403,
        document(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            "<AWSAccessKeyId>AKIA</AWSAccessKeyId>",
        ),
        "does not know access_key_id",
    ),
    (
        "Garage",
        403,
        document(
            "AccessDenied",
            "Forbidden: No such key: GK31c2f218a2e44f485b94239e",
            "<Resource>/media/</Resource><Region>garage</Region>",
        ),
        "does not know access_key_id",
    ),
    (
        "AWS",
        403,
        document(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your "
            "key and signing method.",
            "<StringToSign>AWS4-HMAC-SHA256 "
            "20261123T000000Z</StringToSign><SignatureProvided>abcdef</SignatureProvided>",
        ),
        "secret_access_key does not belong to access_key_id",
    ),
    (
        "Garage",
        403,
        document(
            "AccessDenied",
            "Forbidden: Invalid signature",
            "<Region>garage</Region>",
        ),
        "secret_access_key does not belong to access_key_id",
    ),
    (
        "Garage",
        403,
        document(
            "AccessDenied",
            "Forbidden: Operation is not allowed for this key.",
            "<Region>garage</Region>",
        ),
        "the access key may not do this in the bucket media: Forbidden: Operation is not allowed for this key.",
    ),
    (
        "R2",
        401,
        document(
            "Unauthorized",
            "Unauthorized",
        ),
        "does not accept the access key",
    ),
    (
        "AWS",
        403,
        document(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>",
        ),
        "set the time (NTP)",
    ),
    (
        "Garage",
        400,
        document(
            "InvalidRequest",
            "Bad request: Date is too old",
        ),
        "set the time (NTP)",
    ),
    (
        "AWS",
        400,
        document(
            "ExpiredToken",
            "The provided token has expired.",
        ),
        "session_token is not valid, or no longer",
    ),
    (
        "AWS",
        503,
        document(
            "SlowDown",
            "Please reduce your request rate.",
        ),
        "asks for fewer requests a second",
    ),
    (
        "MinIO",
        507,
        document(
            "XMinioStorageFull",
            "Storage backend has reached its minimum free drive threshold.",
        ),
        "is full: Storage backend has reached its minimum free drive threshold.",
    ),
    (
        "Garage",
        501,
        document(
            "NotImplemented",
            "Unimplemented: GetBucketPolicy",
        ),
        "does not implement what was asked of it: Unimplemented: GetBucketPolicy",
    ),
    (
        "nginx before a dead S3 server",
        502,
        "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n</body>\r\n</html>",
        "is no S3 server, or it or its proxy is in trouble (502)",
    ),
    (
        "a web site",
        404,
        "<!DOCTYPE html><html><body>Not here</body></html>",
        "is not an S3 server: it answered 404 with a web page",
    ),
    (
        "Traefik",
        404,
        "404 page not found\n",
        "does not answer like an S3 server (404 404 page not found)",
    ),
    (
        "a web site that moved",
        308,
        "",
        "redirects elsewhere (308)",
    ),
    (
        "a future server",
        409,
        document(
            "Novelty",
            "never seen",
        ),
        "https://s3.example.org answered 409 Novelty: never seen",
    ),
    (
        "Backblaze B2",
        403,
        document(
            "AccessDenied",
            "Cannot upload files, storage cap exceeded. See the Caps & Alerts page to increase your cap.",
        ),
        "has reached its quota: raise it",
    ),
    ("Backblaze B2", 403, document("InvalidAccessKeyId", "The key '004a' is not valid"), "does not know access_key_id"),
    ("Ceph", 403, document("QuotaExceeded", ""), "has reached its quota"),
    (
        "Google Cloud Storage",
        403,
        document("UserProjectAccountProblem", "The project to be billed is associated with an absent billing account."),
        "wants to be paid: The project",
    ),
    (
        "Wasabi",
        403,
        document("AccountProblem", "There is a problem with your account."),
        "has closed the account, or wants to be paid",
    ),
    (
        "AWS",
        403,
        document("NotSignedUp", "Your account is not signed up for the Amazon S3 service."),
        "has closed the account",
    ),
    (
        "AWS",
        400,
        document(
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock",
        ),
        "set content_md5: true",
    ),
    (
        "versitygw",
        400,
        document("MissingContentMD5", "Missing required header for this request: Content-MD5"),
        "set content_md5: true",
    ),
    (
        "AWS",
        400,
        document("KMS.DisabledException", "arn:aws:kms:1:key/2 is disabled."),
        "the key that the bucket is encrypted with cannot be used",
    ),
    (
        "MinIO",
        503,
        document("SlowDownWrite", "Resource requested is unwritable, please reduce your request rate"),
        "too few of its drives or servers",
    ),
    (
        "MinIO",
        503,
        document("XMinioServerNotInitialized", "Server not initialized yet, please try again."),
        "is starting, or its own storage is down",
    ),
    (
        "R2",
        400,
        document("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed object size."),
        "raise uploads.part_bytes",
    ),
    (
        "R2",
        400,
        document("InvalidPart", "All non-trailing parts must have the same length."),
        "wants parts of equal size",
    ),
    ("AWS", 400, document("KeyTooLongError", "Your key is too long"), "shorten `prefix`"),
    (
        "SeaweedFS",
        403,
        document("InvalidAccessKeyId", "The access key ID you provided does not exist in our records."),
        "does not know access_key_id",
    ),
    (
        "s3proxy",
        501,
        document("NotImplemented", "A header or query you provided requested a function that is not implemented."),
        "does not implement what was asked",
    ),
    (
        "AWS",
        400,
        document(
            "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header."
        ),
        "cut off on its way",
    ),
    (
        "AWS",
        405,
        document("MethodNotAllowed", "The specified method is not allowed against this resource."),
        "correct endpoint_url and path_style",
    ),
    ("Ceph", 404, document("NoSuchUser", ""), "no such tenant or user"),
    (
        "AWS",
        409,
        document(
            "OperationAborted", "A conflicting conditional operation is currently in progress against this resource."
        ),
        "changing the bucket media",
    ),
]
