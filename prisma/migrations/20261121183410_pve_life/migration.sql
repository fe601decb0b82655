-- AlterTable
ALTER TABLE "servers" ADD COLUMN     "delete_at" TIMESTAMPTZ(3),
ADD COLUMN     "delete_protected" BOOLEAN NOT NULL DEFAULT false;

-- CreateTable
CREATE TABLE "snapshots" (
    "id" UUID NOT NULL,
    "server_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "description" TEXT NOT NULL,
    "with_memory" BOOLEAN NOT NULL,
    "taken_at" TIMESTAMPTZ(3),
    "synced_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "snapshots_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "maintenances" (
    "id" UUID NOT NULL,
    "cloud_id" UUID NOT NULL,
    "node" TEXT,
    "message" TEXT NOT NULL,
    "started_by" TEXT NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),
    "ended_at" TIMESTAMPTZ(3),

    CONSTRAINT "maintenances_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "snapshots_server_id_name_key" ON "snapshots"("server_id", "name");

-- CreateIndex
CREATE INDEX "maintenance_open_by_cloud" ON "maintenances"("cloud_id") WHERE ("ended_at" IS NULL);

-- CreateIndex
CREATE INDEX "server_delete_due" ON "servers"("delete_at") WHERE ("delete_at" IS NOT NULL);

-- AddForeignKey
ALTER TABLE "snapshots" ADD CONSTRAINT "snapshots_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "maintenances" ADD CONSTRAINT "maintenances_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- One open row a cloud, and one a node of it; an expression index, which Prisma's differ does not touch.
CREATE UNIQUE INDEX "maintenance_open" ON "maintenances" ("cloud_id", COALESCE("node", '')) WHERE "ended_at" IS NULL;
