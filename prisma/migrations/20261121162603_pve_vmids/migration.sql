-- AlterTable
ALTER TABLE "servers" ADD COLUMN     "provider_data" JSONB NOT NULL DEFAULT '{}';

-- CreateTable
CREATE TABLE "vmid_reservations" (
    "cloud_id" UUID NOT NULL,
    "vmid" INTEGER NOT NULL,
    "operation_id" UUID NOT NULL,
    "spoilt_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "vmid_reservations_pkey" PRIMARY KEY ("cloud_id","vmid")
);

-- CreateIndex
CREATE UNIQUE INDEX "vmid_of_operation" ON "vmid_reservations"("operation_id") WHERE ("spoilt_at" IS NULL);

-- AddForeignKey
ALTER TABLE "vmid_reservations" ADD CONSTRAINT "vmid_reservations_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
