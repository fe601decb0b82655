-- AlterTable
ALTER TABLE "plans" ADD COLUMN     "bandwidth_gib" INTEGER;

-- AlterTable
ALTER TABLE "servers" ADD COLUMN     "bandwidth_gib" INTEGER;

-- CreateTable
CREATE TABLE "traffic_samplers" (
    "cloud_id" UUID NOT NULL,
    "lease_by" TEXT,
    "lease_until" TIMESTAMPTZ(3),
    "counted_at" TIMESTAMPTZ(3),
    "failed_at" TIMESTAMPTZ(3),

    CONSTRAINT "traffic_samplers_pkey" PRIMARY KEY ("cloud_id")
);

-- CreateTable
CREATE TABLE "traffic_counters" (
    "server_id" UUID NOT NULL,
    "external_id" TEXT NOT NULL,
    "uptime_s" BIGINT NOT NULL,
    "in_bytes" BIGINT NOT NULL,
    "out_bytes" BIGINT NOT NULL,
    "measured_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "traffic_counters_pkey" PRIMARY KEY ("server_id")
);

-- CreateTable
CREATE TABLE "traffic_months" (
    "id" UUID NOT NULL,
    "server_id" UUID NOT NULL,
    "customer_id" UUID,
    "month" DATE NOT NULL,
    "in_bytes" BIGINT NOT NULL,
    "out_bytes" BIGINT NOT NULL,
    "counted_from" TIMESTAMPTZ(3) NOT NULL,
    "allowance_gib" INTEGER,
    "told_percent" INTEGER NOT NULL DEFAULT 0,

    CONSTRAINT "traffic_months_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "traffic_gaps" (
    "id" UUID NOT NULL,
    "server_id" UUID NOT NULL,
    "customer_id" UUID,
    "from_at" TIMESTAMPTZ(3) NOT NULL,
    "to_at" TIMESTAMPTZ(3) NOT NULL,
    "kind" TEXT NOT NULL,
    "cause" TEXT NOT NULL,
    "in_bytes" BIGINT NOT NULL DEFAULT 0,
    "out_bytes" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "traffic_gaps_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "traffic_months_server_id_month_idx" ON "traffic_months"("server_id", "month");

-- CreateIndex
CREATE INDEX "traffic_gaps_server_id_from_at_idx" ON "traffic_gaps"("server_id", "from_at");

-- AddForeignKey
ALTER TABLE "traffic_samplers" ADD CONSTRAINT "traffic_samplers_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "traffic_counters" ADD CONSTRAINT "traffic_counters_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "traffic_months" ADD CONSTRAINT "traffic_months_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "traffic_gaps" ADD CONSTRAINT "traffic_gaps_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- One row for each owner of a server in a month; an expression index, because nobody's servers are counted, too, and PostgreSQL
-- 14 has no NULLS NOT DISTINCT.
CREATE UNIQUE INDEX "traffic_month_of_owner" ON "traffic_months" ("server_id", "month", COALESCE("customer_id", '00000000-0000-0000-0000-000000000000'::uuid));
ALTER TABLE "traffic_gaps" ADD CONSTRAINT "traffic_gaps_kind_known" CHECK ("kind" IN ('lost', 'reset', 'carried'));
ALTER TABLE "traffic_gaps" ADD CONSTRAINT "traffic_gaps_cause_known" CHECK ("cause" IN ('cloud', 'figures', 'us'));
ALTER TABLE "traffic_months" ADD CONSTRAINT "traffic_months_counted_upwards" CHECK ("in_bytes" >= 0 AND "out_bytes" >= 0);
ALTER TABLE "servers" ADD CONSTRAINT "servers_bandwidth_not_negative" CHECK ("bandwidth_gib" >= 0);
