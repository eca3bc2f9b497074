"""
The part of the W&B server's GraphQL schema that a run needs.

Worked out from the documents that `wandb` 0.31 sends, which a real server takes: a field, an
argument or a type that is not here is refused, as there.
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = """
scalar JSONString
scalar Duration

type Query {
  viewer: User
  serverInfo: ServerInfo
  model(name: String, entityName: String): Project
  project(name: String, entityName: String): Project
  entity(name: String): Entity
}

type Mutation {
  upsertBucket(input: UpsertBucketInput!): UpsertBucketPayload
  createRunFiles(input: CreateRunFilesInput!): CreateRunFilesPayload
  createArtifact(input: CreateArtifactInput!): CreateArtifactPayload
  createArtifactManifest(input: CreateArtifactManifestInput!): CreateArtifactManifestPayload
  createArtifactFiles(input: CreateArtifactFilesInput!): CreateArtifactFilesPayload
  completeMultipartUploadArtifact(
    input: CompleteMultipartUploadArtifactInput!
  ): CompleteMultipartUploadArtifactPayload
  commitArtifact(input: CommitArtifactInput!): CommitArtifactPayload
}

type User {
  id: ID!
  entity: String
  username: String
  email: String
  flags: JSONString
  teams: TeamConnection
}
type TeamConnection { edges: [TeamEdge!]! }
type TeamEdge { node: Entity }
type Entity { id: ID! name: String! organization: Organization }
type Organization { coreWeaveOrganizationId: ID }

type ServerInfo { features: [ServerFeature]! }
type ServerFeature { name: String! isEnabled: Boolean! }

type Project {
  id: ID!
  name: String!
  entity: Entity!
  bucket(name: String!, missingOk: Boolean): Run
  artifact(name: String!): Artifact
}

type Run {
  id: ID!
  name: String!
  displayName: String
  description: String
  notes: String
  tags: [String!]
  config: JSONString
  wandbConfig(keys: [String!]): JSONString
  summaryMetrics: JSONString
  sweepName: String
  project: Project
  historyLineCount: Int
  eventsLineCount: Int
  logLineCount: Int
  historyTail: JSONString
  eventsTail: JSONString
}

input UpsertBucketInput {
  id: String
  name: String
  groupName: String
  modelName: String
  entityName: String
  description: String
  displayName: String
  notes: String
  commit: String
  config: JSONString
  host: String
  debug: Boolean
  jobProgram: String
  jobRepo: String
  jobType: String
  state: String
  sweep: String
  tags: [String!]
  summaryMetrics: JSONString
}
type UpsertBucketPayload { bucket: Run inserted: Boolean }

input CreateRunFilesInput {
  entityName: String!
  projectName: String!
  runName: String!
  files: [String!]!
}
type CreateRunFilesPayload { runID: ID! uploadHeaders: [String!]! files: [File!]! }

type File {
  id: ID!
  name: String!
  displayName: String
  storagePath: String
  uploadUrl: String
  uploadHeaders: [String!]
  uploadMultipartUrls: UploadUrls
  artifact: Artifact
}
type UploadUrls { uploadID: ID! uploadUrlParts: [UploadUrlPart!]! }
type UploadUrlPart { partNumber: Int! uploadUrl: String! }
type FileConnection { edges: [FileEdge!]! }
type FileEdge { node: File }

input ArtifactAliasInput { artifactCollectionName: String! alias: String! }
enum ArtifactDigestAlgorithm { MANIFEST_MD5 }
enum ArtifactManifestType { FULL INCREMENTAL PATCH }
enum ArtifactStorageLayout { V1 V2 }
enum CompleteMultipartAction { Complete Abort }

input CreateArtifactInput {
  entityName: String!
  projectName: String!
  runName: String
  artifactTypeName: String!
  artifactCollectionName: String
  artifactCollectionNames: [String!]
  digest: String!
  digestAlgorithm: ArtifactDigestAlgorithm!
  description: String
  metadata: JSONString
  labels: JSONString
  aliases: [ArtifactAliasInput!]
  tags: [ArtifactAliasInput!]
  clientID: ID!
  sequenceClientID: ID
  distributedID: String
  enableDigestDeduplication: Boolean
  historyStep: Int
  storageRegion: String
  ttlDurationSeconds: Int
  clientMutationId: String
}
type CreateArtifactPayload { artifact: Artifact }

type ArtifactType { name: String! }
type ArtifactSequence { latestArtifact: Artifact }
enum ArtifactState { PENDING COMMITTED DELETED }
type Artifact {
  id: ID!
  digest: String!
  state: ArtifactState!
  artifactType: ArtifactType
  artifactSequence: ArtifactSequence
}

input CreateArtifactManifestInput {
  artifactID: ID!
  baseArtifactID: ID
  name: String!
  digest: String!
  entityName: String!
  projectName: String!
  runName: String!
  type: ArtifactManifestType!
}
type CreateArtifactManifestPayload { artifactManifest: ArtifactManifest }
type ArtifactManifest { id: ID! file: File! }

input UploadPartsInput { partNumber: Int! hexMD5: String! }
input CreateArtifactFileSpecInput {
  artifactID: ID!
  name: String!
  md5: String!
  mimetype: String
  artifactManifestID: ID
  uploadPartsInput: [UploadPartsInput!]
}
input CreateArtifactFilesInput {
  artifactFiles: [CreateArtifactFileSpecInput!]!
  storageLayout: ArtifactStorageLayout!
  cloudRegionID: String
  clientMutationId: String
}
type CreateArtifactFilesPayload { files: FileConnection! }

input CompleteMultipartUploadArtifactInput {
  completeMultipartAction: CompleteMultipartAction!
  completedParts: [UploadPartsInput!]!
  artifactID: ID!
  storagePath: String!
  uploadID: String!
}
type CompleteMultipartUploadArtifactPayload { digest: String }

input CommitArtifactInput { artifactID: ID! }
type CommitArtifactPayload { artifact: Artifact! }
"""
