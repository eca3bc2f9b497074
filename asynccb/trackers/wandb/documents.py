"""The GraphQL documents that store an artifact; every field is one that `wandb` 0.31 asks for."""

from __future__ import annotations

from typing import Final

CREATE: Final = """\
mutation CreateArtifact($input: CreateArtifactInput!) {
  createArtifact(input: $input) {
    artifact { id state artifactSequence { latestArtifact { id } } }
  }
}"""
MANIFEST: Final = """\
mutation CreateArtifactManifest($artifactID: ID!, $baseArtifactID: ID, $name: String!, \
$digest: String!, $entityName: String!, $projectName: String!, $runName: String!, \
$manifestType: ArtifactManifestType!, $includeUpload: Boolean!) {
  createArtifactManifest(input: {artifactID: $artifactID, baseArtifactID: $baseArtifactID, \
name: $name, digest: $digest, entityName: $entityName, projectName: $projectName, \
runName: $runName, type: $manifestType}) {
    artifactManifest {
      id
      file {
        uploadUrl @include(if: $includeUpload)
        uploadHeaders @include(if: $includeUpload)
      }
    }
  }
}"""
FILES: Final = """\
mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) {
  createArtifactFiles(input: $input) {
    files {
      edges {
        node {
          storagePath
          uploadUrl
          uploadHeaders
          uploadMultipartUrls { uploadID uploadUrlParts { partNumber uploadUrl } }
          artifact { id }
        }
      }
    }
  }
}"""
COMPLETE: Final = """\
mutation CompleteMultipartUploadArtifact($completeMultipartAction: CompleteMultipartAction!, \
$completedParts: [UploadPartsInput!]!, $artifactID: ID!, $storagePath: String!, \
$uploadID: String!) {
  completeMultipartUploadArtifact(input: {completeMultipartAction: $completeMultipartAction, \
completedParts: $completedParts, artifactID: $artifactID, storagePath: $storagePath, \
uploadID: $uploadID}) {
    digest
  }
}"""
COMMIT: Final = """\
mutation CommitArtifact($artifactID: ID!) {
  commitArtifact(input: {artifactID: $artifactID}) { artifact { id digest } }
}"""
