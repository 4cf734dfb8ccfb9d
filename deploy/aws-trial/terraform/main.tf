# A trial of rds-lb-agent in an AWS account of yours: one small Aurora PostgreSQL cluster of two instances with IAM
# authentication, and one host for HAProxy and the agent. It costs money while it exists. README.md says how to run
# the checks and how to remove everything.

resource "random_password" "master" {
  length  = 32
  special = false
}

resource "aws_kms_key" "trial" {
  description             = "Data of the trial of rds-lb-agent"
  enable_key_rotation     = true
  deletion_window_in_days = 7
}

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "The balancer: nothing comes in, SSM is used for access"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.balancer.id
  description       = "AWS APIs and package repositories"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "database" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "The databases"
  referenced_security_group_id = aws_security_group.database.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "The databases: only the balancer comes in"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  description                  = "The balancer"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_subnet_group" "trial" {
  name       = var.name
  subnet_ids = var.database_subnet_ids
}

resource "aws_rds_cluster" "trial" {
  cluster_identifier                  = var.name
  engine                              = "aurora-postgresql"
  engine_version                      = var.engine_version
  database_name                       = "orders"
  master_username                     = "trial_admin"
  master_password                     = random_password.master.result
  iam_database_authentication_enabled = true
  db_subnet_group_name                = aws_db_subnet_group.trial.name
  vpc_security_group_ids              = [aws_security_group.database.id]
  storage_encrypted                   = true
  kms_key_id                          = aws_kms_key.trial.arn
  enabled_cloudwatch_logs_exports     = ["postgresql"]
  copy_tags_to_snapshot               = true
  backup_retention_period             = 1
  skip_final_snapshot                 = true
}

resource "aws_rds_cluster_instance" "trial" {
  for_each                   = toset(["a", "b"])
  identifier                 = "${var.name}-${each.key}"
  cluster_identifier         = aws_rds_cluster.trial.id
  engine                     = aws_rds_cluster.trial.engine
  engine_version             = aws_rds_cluster.trial.engine_version
  instance_class             = var.instance_class
  auto_minor_version_upgrade = true
}

module "iam" {
  source       = "../../iam/terraform"
  name         = var.name
  resource_ids = [aws_rds_cluster.trial.cluster_resource_id]
  user         = "lb_agent"
  runs_on      = "ec2"
}

# The trial's clients log in as `app`, and the script starts one failover.
resource "aws_iam_role_policy" "trial" {
  name = "${var.name}-clients"
  role = var.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "rds-db:connect"
        Resource = replace(aws_rds_cluster.trial.arn, "/:rds:(.*):cluster:.*/", ":rds-db:$1:dbuser:${aws_rds_cluster.trial.cluster_resource_id}/app")
      },
      {
        Effect   = "Allow"
        Action   = "rds:FailoverDBCluster"
        Resource = [aws_rds_cluster.trial.arn]
      },
    ]
  })
  depends_on = [module.iam]
}

resource "aws_iam_role_policy_attachment" "ssm" {
  role       = var.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
  depends_on = [module.iam]
}

resource "aws_instance" "balancer" {
  ami                    = var.ami_id
  instance_type          = "t3.small"
  subnet_id              = var.balancer_subnet_id
  vpc_security_group_ids = [aws_security_group.balancer.id]
  iam_instance_profile   = module.iam.instance_profile
  ebs_optimized          = true
  monitoring             = true
  tags                   = { Name = var.name }

  metadata_options {
    http_tokens = "required"
  }

  root_block_device {
    encrypted = true
  }
}
