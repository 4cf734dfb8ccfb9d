# The role of rds-lb-agent. Its statements are those of ../policies.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  place = {
    partition = data.aws_partition.current.partition
    region    = data.aws_region.current.name
    account   = data.aws_caller_identity.current.account_id
    user      = var.user
  }
  logins = [
    for id in var.resource_ids :
    jsondecode(templatefile("${path.module}/../policies/probe.json", merge(local.place, { resource_id = id }))).Statement[0].Resource
  ]
  login = merge(
    jsondecode(templatefile("${path.module}/../policies/probe.json", merge(local.place, { resource_id = "" }))).Statement[0],
    { Resource = local.logins },
  )
  further = flatten([
    for feature in sort(tolist(var.features)) :
    jsondecode(templatefile("${path.module}/../policies/${feature}.json", local.place)).Statement
  ])

  # oidc.eks.REGION.amazonaws.com/id/ID
  oidc_issuer = replace(var.oidc_provider_arn, "/^arn:[^:]+:iam::[0-9]+:oidc-provider\\//", "")
  trust = {
    "ec2" = {
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }
    "pod-identity" = {
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
    }
    "irsa" = {
      Effect    = "Allow"
      Principal = { Federated = var.oidc_provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "${local.oidc_issuer}:aud" = "sts.amazonaws.com"
          "${local.oidc_issuer}:sub" = "system:serviceaccount:${var.service_account}"
        }
      }
    }
  }
}

resource "aws_iam_policy" "agent" {
  name        = var.name
  description = "Logins of rds-lb-agent, and what its features read"
  policy      = jsonencode({ Version = "2012-10-17", Statement = concat([local.login], local.further) })
  tags        = var.tags
}

resource "aws_iam_role" "agent" {
  count              = var.runs_on == "policy" ? 0 : 1
  name               = var.name
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [local.trust[var.runs_on]] })
  tags               = var.tags

  lifecycle {
    precondition {
      condition     = var.runs_on != "irsa" || (var.oidc_provider_arn != "" && var.service_account != "")
      error_message = "runs_on irsa needs oidc_provider_arn and service_account."
    }
  }
}

resource "aws_iam_role_policy_attachment" "agent" {
  count      = var.runs_on == "policy" ? 0 : 1
  role       = aws_iam_role.agent[0].name
  policy_arn = aws_iam_policy.agent.arn
}

resource "aws_iam_instance_profile" "agent" {
  count = var.runs_on == "ec2" ? 1 : 0
  name  = var.name
  role  = aws_iam_role.agent[0].name
  tags  = var.tags
}
